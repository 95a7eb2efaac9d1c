"""What SQL tells of a database's relations: one row each, in the order of their names."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from pagestore.mcp.answers import Relation

_RELATIONS = """
SELECT n.nspname, c.relname,
       CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
            WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END,
       greatest(c.reltuples, 0)::bigint,
       pg_catalog.obj_description(c.oid, 'pg_class'),
       coalesce((SELECT json_agg(json_strip_nulls(json_build_object(
                    'name', a.attname, 'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
                    'not_null', a.attnotnull, 'default', pg_catalog.pg_get_expr(d.adbin, d.adrelid),
                    'comment', pg_catalog.col_description(c.oid, a.attnum))) ORDER BY a.attnum)
                 FROM pg_catalog.pg_attribute a
                 LEFT JOIN pg_catalog.pg_attrdef d
                        ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]'),
       coalesce((SELECT json_agg(k.conname || ' ' || pg_catalog.pg_get_constraintdef(k.oid)
                                 ORDER BY k.contype, k.conname)
                 FROM pg_catalog.pg_constraint k
                 -- 18 has one of each column that is not null, which its column says already.
                 WHERE k.conrelid = c.oid AND k.contype <> 'n'), '[]'),
       coalesce((SELECT json_agg(pg_catalog.pg_get_indexdef(i.indexrelid) ORDER BY i.indexrelid)
                 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid), '[]')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relname LIKE {}
ORDER BY n.nspname, c.relname
"""


def relations_like(pattern: str) -> str:
    """The statement, for relations whose names are LIKE a pattern."""
    return sql.SQL(_RELATIONS).format(sql.Literal(pattern)).as_string(None)


def relation_of(row: list[Any]) -> Relation:
    name, relation, kind, rows, comment, columns, constraints, indexes = row
    return Relation(
        schema_name=name,
        name=relation,
        kind=kind,
        rows_estimated=rows,
        comment=comment,
        columns=columns,
        constraints=constraints,
        indexes=indexes,
    )
