"""What fills the databases: a DuckDB file of ours, and the tables of the ontology one by one."""
