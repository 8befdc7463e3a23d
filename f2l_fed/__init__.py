"""F2L-Fed: networks that are generated for a site instead of trained at it.

The science and the records; pure: no Ray, no sockets, no clock outside the zoo's files.
"""

__version__ = "0.1.0"
