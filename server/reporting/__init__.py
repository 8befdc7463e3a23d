"""Results for people: ``result.json``, the report page, tables and progress on a terminal."""
