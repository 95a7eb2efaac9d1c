#include "module.h"

int
ps_add_redo(PyObject *module)
{
    (void)module;
    return 0;
}
