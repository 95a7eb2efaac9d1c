/* What connection.c and joined.c ask of each other. */
#ifndef PS_RELAY_JOINED_H
#define PS_RELAY_JOINED_H

#include "relay/connection.h"

/* --- joined.c */

/* Passes on what a connection of a pair has to say. */
void joined_pump(relay_loop *loop, connection *from);
/* A client's backend goes at once; the client has yet to be told something. */
void joined_sever(relay_loop *loop, connection *client);

/* --- connection.c */

/* Tells why, closes, frees one of them; its peer is left as it is. `why` may be NULL. */
void connection_release(relay_loop *loop, connection *conn, const char *why);
void connection_end_session(connection *client);
void connection_update_interest(relay_loop *loop, connection *conn);
/* Writes; what is left waits. False: broken, nothing was ended yet. */
bool connection_put(connection *conn, const uint8_t *data, size_t length);
void connection_finish_writing(connection *conn);
/* Whether there is anything to read, which stays unread. */
void connection_look(relay_loop *loop, connection *conn);

#endif
