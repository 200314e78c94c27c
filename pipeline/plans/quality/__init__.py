"""What a plan is like before a GPU hour is spent, beside a random plan of the same pairs.

measure.py   all of ``quality.json``
alike.py     cosines within batches
counts.py    how often pairs are seen, how many objects meet, how deep they lie
measured.py  averages of these over phases
verdict.py   warnings, and the measurements they come from
report.py    quality.json as tables
overlap.py   what two plans have in common
"""
