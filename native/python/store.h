/* Inside of the store's binding. */
#ifndef PS_PYTHON_STORE_H
#define PS_PYTHON_STORE_H

#include "batch.h"
#include "store/serve.h"
#include "store/timeline.h"

/* The layer inside an OpenLayer or a Layer, with its own bounds, or -1 with TypeError set. */
int ps_source_of(PyObject *object, ps_source *source);
/* A Layer of a layer, which it retains. */
PyObject *ps_layer_object(ps_layer *layer);

/* What is inside a Remote; NULL of None. 0, or -1 with TypeError set. */
int ps_remote_of(PyObject *object, ps_remote **remote);

/* What is inside a Snapshot, or NULL with TypeError set. */
const ps_snapshot *ps_snapshot_of(PyObject *object);
/* A Snapshot of one that was made, which becomes its; of NULL, MemoryError. */
PyObject *ps_snapshot_object(ps_snapshot *snapshot);

int ps_add_layers(PyObject *module);
int ps_add_layer_file(PyObject *module);
int ps_add_snapshot(PyObject *module);
int ps_add_timeline(PyObject *module);
int ps_add_compaction(PyObject *module);
int ps_add_page_readers(PyObject *module);
int ps_add_needed(PyObject *module);
int ps_add_remote(PyObject *module);

/* The LSNs of a tuple, of PyMem_RawMalloc; NULL with an exception set. */
uint64_t *ps_lsns_of(PyObject *tuple);

/* The type of summaries, and conversions both ways; NULL or -1 with an exception set. */
int ps_add_summary(PyObject *module);
PyObject *ps_summary_make(const ps_layer_summary *summary);
int ps_summary_read(PyObject *object, ps_layer_summary *summary);
int ps_layer_id_read(const Py_buffer *tenant, const Py_buffer *timeline,
                     unsigned long long number, ps_layer_id *id);

#endif
