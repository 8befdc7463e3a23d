"""The ground of the package: parsing, validation, random draws, durable files and locks."""
