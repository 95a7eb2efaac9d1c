#ifndef PAGESTORE_REDO_REPLAY_H
#define PAGESTORE_REDO_REPLAY_H

#include "redo/protocol.h"

extern void redo_replay_init(void);

/*
 * Replays one whole request, whose header is at `request`, into `page`. A request that does
 * not hold together, or a record that cannot be redone, is an ERROR.
 */
extern void redo_replay(const ps_redo_wire_request *request, char *page);

#endif
