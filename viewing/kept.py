"""What was made last and may be asked for again, up to a size."""

from collections import OrderedDict


class Kept:
    """A mapping that forgets what was used least lately; the sizes of its values add up to `most` at most.

    size: of a value; each counts as 1 where none is given
    """

    def __init__(self, most, size=lambda value: 1):
        self.most, self.size, self.total, self.values = most, size, 0, OrderedDict()

    def get(self, key):
        """The value, or None."""
        if key in self.values:
            self.values.move_to_end(key)
        return self.values.get(key)

    def put(self, key, value):
        """Keeps a value, unless it alone is too large; returns it."""
        if key not in self.values and self.size(value) <= self.most:
            self.values[key] = value
            self.total += self.size(value)
            while self.total > self.most:
                self.total -= self.size(self.values.popitem(last=False)[1])
        return value
