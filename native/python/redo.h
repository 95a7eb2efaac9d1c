/* pagestore._native.RedoPool: helper processes that make pages from WAL records. */
#ifndef PS_PYTHON_REDO_H
#define PS_PYTHON_REDO_H

#include "module.h"
#include "redo/redo.h"

/* The pool inside, or NULL with TypeError set. Valid while the caller holds the object. */
ps_redo_pool *ps_redo_pool_of(PyObject *object);

/* The same; None is no pool. -1 with TypeError set. */
int ps_redo_pool_or_none(PyObject *object, ps_redo_pool **pool);

#endif
