/* Inside of the store's binding. */
#ifndef PS_PYTHON_STORE_H
#define PS_PYTHON_STORE_H

#include "batch.h"
#include "store/serve.h"

/* The layer inside an OpenLayer or a Layer, or -1 with TypeError set. */
int ps_source_of(PyObject *object, ps_source *source);

/* The view of a Snapshot, or NULL with TypeError set. */
const ps_snapshot *ps_snapshot_of(PyObject *object);

int ps_add_layers(PyObject *module);
int ps_add_layer_file(PyObject *module);
int ps_add_snapshot(PyObject *module);
int ps_add_page_readers(PyObject *module);

/* The type of summaries, and conversions both ways; NULL or -1 with an exception set. */
int ps_add_summary(PyObject *module);
PyObject *ps_summary_make(const ps_layer_summary *summary);
int ps_summary_read(PyObject *object, ps_layer_summary *summary);
int ps_layer_id_read(const Py_buffer *tenant, const Py_buffer *timeline,
                     unsigned long long number, ps_layer_id *id);

#endif
