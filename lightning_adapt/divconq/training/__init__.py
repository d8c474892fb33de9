"""The selection inside a `fit`: pool, rounds, resume, files and reports of DiversitySelectionCallback."""
