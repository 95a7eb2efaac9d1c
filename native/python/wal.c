#include "module.h"

int
ps_add_wal(PyObject *module)
{
    (void)module;
    return 0;
}
