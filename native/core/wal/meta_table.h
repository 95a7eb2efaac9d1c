/*
 * A ps_meta_source of its own: the latest value of each metadata key, in memory.
 *
 * It stands for a timeline where there is none: in tests, and in tools that go through WAL
 * alone. It knows one state, that after everything put; the LSN asked for is not looked at.
 */
#ifndef PS_WAL_META_TABLE_H
#define PS_WAL_META_TABLE_H

#include "value.h"

typedef struct ps_meta_table ps_meta_table;

ps_meta_table *ps_meta_table_new(void); /* NULL: no memory */
void ps_meta_table_free(ps_meta_table *table);
/* The source reads the table for as long as that lives; threads may share it. */
const ps_meta_source *ps_meta_table_source(ps_meta_table *table);
int ps_meta_table_put(ps_meta_table *table, const ps_key *key, const void *value, size_t length);
int ps_meta_table_remove(ps_meta_table *table, const ps_key *key);
/* Puts and removes what the batch says of metadata keys; pages are passed over. */
int ps_meta_table_apply(ps_meta_table *table, const ps_batch *batch);
size_t ps_meta_table_count(ps_meta_table *table);

#endif
