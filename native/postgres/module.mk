# What the modules' makefiles share. They are run in objects/<major>/<module>, with MAJOR and
# PG_CONFIG given, and say: MODULE, and what they need besides the .c files of their folder. A file
# name_N.c belongs to major N alone.

FOLDER := $(HERE)/$(MODULE)
ALL_SOURCES := $(notdir $(wildcard $(FOLDER)/*.c))
OF_OTHERS := $(filter-out %_$(MAJOR).c,$(filter $(foreach n,15 16 17 18,%_$(n).c),$(ALL_SOURCES)))

MODULE_big = pagestore_$(MODULE)-$(MAJOR)
OBJS = $(patsubst %.c,%.o,$(sort $(filter-out $(OF_OTHERS),$(ALL_SOURCES)) $(MORE_SOURCES)))
PG_CPPFLAGS = -I$(CURDIR) -I$(FOLDER) -I$(HERE) -I$(CORE)
PG_CFLAGS = -std=gnu11 -Wno-declaration-after-statement -Werror=implicit-function-declaration \
            -Werror=int-conversion -Werror=incompatible-pointer-types
NO_INSTALLCHECK = 1

vpath %.c $(FOLDER) $(HERE) $(CORE)

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard $(FOLDER)/*.h $(HERE)/*.h $(CORE)/value.h $(CORE)/key.h $(CORE)/redo/protocol.h)
