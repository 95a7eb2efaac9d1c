/* Where messages begin, however the bytes are cut; when a session is at rest. */
#undef NDEBUG
#include <assert.h>
#include <string.h>

#include "relay/framing.h"

typedef void feeder(ps_session *session, const uint8_t *data, size_t length);

static void
say(ps_session *session, feeder *feed, char kind, const char *body, uint32_t length, size_t step)
{
    uint8_t message[64] = {(uint8_t)kind, 0, 0, 0, (uint8_t)(length + 4)};
    assert(length + 5 <= sizeof message);
    memcpy(message + 5, body, length);
    for (size_t at = 0; at < length + 5; at += step)
        feed(session, message + at, length + 5 - at < step ? length + 5 - at : step);
}

static void
client(ps_session *session, char kind, size_t step)
{
    say(session, ps_session_from_client, kind, "body", 4, step);
}

static void
server(ps_session *session, char kind, const char *body, size_t step)
{
    say(session, ps_session_from_server, kind, body, (uint32_t)strlen(body), step);
}

static void
simple_query(size_t step)
{
    ps_session session;
    ps_session_begin(&session);
    assert(ps_session_at_rest(&session));
    client(&session, 'Q', step);
    assert(!ps_session_at_rest(&session));
    server(&session, 'T', "row", step);
    server(&session, 'Z', "T", step);
    assert(!ps_session_at_rest(&session));
    client(&session, 'Q', step);
    client(&session, 'Q', step);
    server(&session, 'Z', "I", step);
    assert(!ps_session_at_rest(&session)); /* one more is owed */
    server(&session, 'Z', "I", step);
    assert(ps_session_at_rest(&session));
    assert(session.queries == 3);
}

static void
extended_query(size_t step)
{
    ps_session session;
    ps_session_begin(&session);
    client(&session, 'P', step);
    client(&session, 'B', step);
    client(&session, 'E', step);
    say(&session, ps_session_from_client, 'S', "", 0, step);
    assert(!ps_session_at_rest(&session));
    server(&session, '1', "", step);
    server(&session, 'E', "fault", step);
    server(&session, 'Z', "I", step);
    assert(ps_session_at_rest(&session));
    assert(session.queries == 1);
}

/* What was said since the last Sync has run already, or waits behind what has. */
static void
before_the_sync(size_t step)
{
    for (const char *kind = "PBDEC"; *kind != '\0'; kind++) {
        ps_session session;
        ps_session_begin(&session);
        say(&session, ps_session_from_client, *kind, "Sname", 5, step);
        assert(!ps_session_at_rest(&session));
        server(&session, 'E', "fault", step);
        assert(!ps_session_at_rest(&session));
        say(&session, ps_session_from_client, 'S', "", 0, step);
        client(&session, 'B', step); /* of the next one, and the first is still to be answered */
        server(&session, 'Z', "I", step);
        assert(!ps_session_at_rest(&session));
        say(&session, ps_session_from_client, 'S', "", 0, step);
        assert(!ps_session_at_rest(&session));
        say(&session, ps_session_from_client, 'H', "", 0, step); /* it asks for nothing new */
        server(&session, 'Z', "I", step);
        assert(ps_session_at_rest(&session));
    }
}

/* A Sync within the data ends nothing: the one behind them does. */
static void
extended_copy_in(size_t step)
{
    ps_session session;
    ps_session_begin(&session);
    client(&session, 'B', step);
    client(&session, 'E', step);
    server(&session, 'G', "formats", step);
    say(&session, ps_session_from_client, 'S', "", 0, step);
    client(&session, 'd', step);
    say(&session, ps_session_from_client, 'c', "", 0, step);
    server(&session, 'C', "COPY 1", step);
    assert(!ps_session_at_rest(&session));
    say(&session, ps_session_from_client, 'S', "", 0, step);
    server(&session, 'Z', "I", step);
    assert(ps_session_at_rest(&session));
}

static void
copy_in(size_t step)
{
    ps_session session;
    ps_session_begin(&session);
    client(&session, 'Q', step);
    server(&session, 'G', "formats", step);
    client(&session, 'd', step);
    say(&session, ps_session_from_client, 'S', "", 0, step); /* passed over by the backend */
    say(&session, ps_session_from_client, 'c', "", 0, step);
    assert(!ps_session_at_rest(&session));
    server(&session, 'C', "COPY 1", step);
    server(&session, 'Z', "I", step);
    assert(ps_session_at_rest(&session));
}

static void
unnamed_statement(size_t step)
{
    ps_session session;
    ps_session_begin(&session);
    say(&session, ps_session_from_client, 'P', "\0select 1\0\0\0", 12, step);
    say(&session, ps_session_from_client, 'B', "\0\0other", 7, step);
    assert(session.unnamed_have == 12 && memcmp(session.unnamed, "\0select 1\0\0\0", 12) == 0);
    say(&session, ps_session_from_client, 'P', "named\0select 2\0\0\0", 17, step);
    assert(session.unnamed_have == 12);
    client(&session, 'Q', step);
    assert(session.unnamed == NULL && !session.unnamed_lost);
    uint8_t long_one[6] = {'P', 0, 2, 0, 0, 0};
    ps_session_from_client(&session, long_one, sizeof long_one);
    assert(session.unnamed == NULL && session.unnamed_lost);
    ps_session_end(&session);
}

static void
half_a_message(void)
{
    ps_session session;
    ps_session_begin(&session);
    const uint8_t head[] = {'P', 0, 0, 0, 9, 'a'};
    for (size_t length = 1; length <= sizeof head; length++) {
        ps_session_begin(&session);
        ps_session_from_client(&session, head, length);
        assert(!ps_session_at_rest(&session));
        ps_session_end(&session);
    }
}

static void
never_at_rest_again(void)
{
    ps_session session;
    ps_session_begin(&session);
    const uint8_t broken[] = {'Q', 0, 0, 0, 3, 'x', 'y'};
    ps_session_from_client(&session, broken, sizeof broken);
    assert(!ps_session_at_rest(&session));
    ps_session_begin(&session);
    client(&session, 'Q', 100);
    server(&session, 'W', "formats", 100);
    server(&session, 'Z', "I", 100);
    assert(!ps_session_at_rest(&session));
}

int
main(void)
{
    for (size_t step = 1; step <= 16; step++) {
        simple_query(step);
        extended_query(step);
        before_the_sync(step);
        extended_copy_in(step);
        copy_in(step);
        unnamed_statement(step);
    }
    half_a_message();
    never_at_rest_again();
    return 0;
}
