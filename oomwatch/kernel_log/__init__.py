"""Reading kernel logs: pure parsers, from records of any form to the kills that they tell of.

From the forms of a log to `Record`: `record`, `kmsg`, `text`, `stamps`, `journal_forms`. From a
record's text to what the line says: `grammar`, `summary`, `tasks`, `messages`. From lines to a
`KillRecord`, at the kill's own line: `assembler`, `kill_record`. From those to `OomKill` events, of
a log at rest: `episodes`. And of a large log, only what must be read: `search`.
"""
