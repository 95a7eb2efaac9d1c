/* pagestore._native.Batch: values in WAL order, made by ingest and taken by the open layer. */
#ifndef PS_PYTHON_BATCH_H
#define PS_PYTHON_BATCH_H

#include "module.h"
#include "value.h"

/* The batch inside, or NULL with TypeError set. Valid while the caller holds the object. */
ps_batch *ps_batch_of(PyObject *object);

int ps_add_batch(PyObject *module);

#endif
