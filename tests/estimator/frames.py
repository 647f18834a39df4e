"""A table with columns by name, as pandas and its relatives have them."""


class Frame:
  """As little of a DataFrame as is read."""

  def __init__(self, columns):
    self._columns = dict(columns)
    self.columns = list(self._columns)

  def __len__(self):
    return len(next(iter(self._columns.values())))

  def __getitem__(self, name):
    return self._columns[name]
