#include "wal/format.h"

/* The operations of the resource managers, but XLOG's: the same in each. */
#define OF_ALL                                                                                     \
    [PS_RMGR_XACT] = 0x7F7F, [PS_RMGR_SMGR] = 0x0006, [PS_RMGR_CLOG] = 0x0003,                     \
    [PS_RMGR_DBASE] = 0x0007, [PS_RMGR_TBLSPC] = 0x0003, [PS_RMGR_MULTIXACT] = 0x000F,             \
    [PS_RMGR_RELMAP] = 0x0001, [PS_RMGR_STANDBY] = 0x0007, [PS_RMGR_HEAP2] = 0x20FF,               \
    [PS_RMGR_HEAP] = 0x15FF, [PS_RMGR_BTREE] = 0x7FFF, [PS_RMGR_HASH] = 0x1FFF,                    \
    [PS_RMGR_GIN] = 0x03FE, [PS_RMGR_GIST] = 0x00CF, [PS_RMGR_SEQ] = 0x0001,                       \
    [PS_RMGR_SPGIST] = 0x01FE, [PS_RMGR_BRIN] = 0x063F, [PS_RMGR_COMMIT_TS] = 0x0003,              \
    [PS_RMGR_REPLORIGIN] = 0x0003, [PS_RMGR_GENERIC] = 0x0001, [PS_RMGR_LOGICALMSG] = 0x0001
#define XLOG 0x2FFF
#define XLOG_WITH_REDO (XLOG | 1u << 0xE) /* CHECKPOINT_REDO */

static const ps_wal_format formats[] = {
    {.major = 15,
     .catalog_version = 202209061,
     .magic = 0xD110,
     .operations = {OF_ALL, [PS_RMGR_XLOG] = XLOG},
     .relmap_length = 512,
     .dropped_stats_length = 12,
     .slru_page_length = 4},
    {.major = 17,
     .catalog_version = 202406281,
     .magic = 0xD116,
     .operations = {OF_ALL, [PS_RMGR_XLOG] = XLOG_WITH_REDO},
     .relmap_length = 524,
     .dropped_stats_length = 12,
     .slru_page_length = 8},
    {.major = 18,
     .catalog_version = 202506291,
     .magic = 0xD118,
     .operations = {OF_ALL, [PS_RMGR_XLOG] = XLOG_WITH_REDO},
     .relmap_length = 524,
     .dropped_stats_length = 16,
     .slru_page_length = 8},
};

#define FORMATS (sizeof formats / sizeof formats[0])

const ps_wal_format *
ps_wal_format_by_magic(uint16_t magic)
{
    for (size_t i = 0; i < FORMATS; i++)
        if (formats[i].magic == magic)
            return &formats[i];
    return NULL;
}

const ps_wal_format *
ps_wal_format_by_catalog(uint32_t catalog_version)
{
    /* Zeros are what control values that are not there read as (xlog.c): the oldest major. */
    if (catalog_version == 0)
        return &formats[0];
    for (size_t i = 0; i < FORMATS; i++)
        if (formats[i].catalog_version == catalog_version)
            return &formats[i];
    return NULL;
}
