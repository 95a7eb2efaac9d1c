"""What differs between two databases: their schemas, and the rows of their tables.

Where the two have a history in common, most tables were not touched since they parted, and of most
others few blocks were: the page server knows which, and only those are read, on either side. All is
read over SQL, as any client would; Postgres says what a row is.
"""
