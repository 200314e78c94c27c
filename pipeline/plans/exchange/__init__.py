"""Plans as tables that need no TOnICS.

table.py     batches as a parquet table, written for others
listed.py    batches as others list them in such a table, read
imported.py  listed batches -> those of a plan, by the same rules
"""
