// pgx: its pool, and a session that listens. See ../programs.py for what it is told.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

type door struct {
	Host, User, Password, Database, Certificate, Channel string
	Direct                                               string
	WorkMem                                              string `json:"work_mem"`
	Port, Rows, Large, Sessions                          int
}

type client struct {
	door     door
	pool     *pgxpool.Pool
	listener *pgx.Conn
}

var always = context.Background()

func (d door) url() string {
	facts := fmt.Sprintf("host=%s port=%d user=%s password='%s' dbname=%s",
		d.Host, d.Port, d.User, d.Password, d.Database)
	if d.Certificate == "" {
		return facts + " sslmode=disable"
	}
	facts += fmt.Sprintf(" sslmode=verify-full sslrootcert=%s", d.Certificate)
	if d.Direct != "" {
		facts += " sslnegotiation=direct"
	}
	return facts
}

func (c *client) open() error {
	config, err := pgxpool.ParseConfig(fmt.Sprintf("%s pool_max_conns=%d", c.door.url(), c.door.Sessions))
	if err != nil {
		return err
	}
	if c.pool, err = pgxpool.NewWithConfig(always, config); err != nil {
		return err
	}
	c.listener, err = pgx.Connect(always, c.door.url())
	return err
}

func (c *client) withAll(use func(*pgxpool.Conn) error) error {
	for i := 0; i < c.door.Sessions; i++ {
		session, err := c.pool.Acquire(always)
		if err != nil {
			return err
		}
		defer session.Release()
		if err = use(session); err != nil {
			return err
		}
	}
	return nil
}

func number(session *pgx.Conn, query string, arguments ...any) (n int, err error) {
	err = session.QueryRow(always, query, arguments...).Scan(&n)
	return n, err
}

func expect(session *pgx.Conn, wanted int, query string, arguments ...any) error {
	n, err := number(session, query, arguments...)
	if err == nil && n != wanted {
		err = fmt.Errorf("%s: %d, not %d", query, n, wanted)
	}
	return err
}

func sqlstate(err error, wanted string) error {
	var told *pgconn.PgError
	if errors.As(err, &told) && told.Code == wanted {
		return nil
	}
	return fmt.Errorf("expected %s, got %v", wanted, err)
}

func (c *client) exercise() error {
	session, err := c.pool.Acquire(always)
	if err != nil {
		return err
	}
	defer session.Release()
	conn := session.Conn()
	for _, act := range []func(*pgx.Conn) error{c.queries, c.copies, c.large, c.objects, c.cancels} {
		if err = act(conn); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) queries(conn *pgx.Conn) error {
	if err := expect(conn, 42, "SELECT $1::int + 1", 41); err != nil {
		return err
	}
	_, err := number(conn, "SELECT 1 / $1::int", 0)
	if err = sqlstate(err, "22012"); err != nil {
		return err
	}
	if err = expect(conn, 5, "SELECT 5", pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	batch := &pgx.Batch{}
	for i := 0; i < 100; i++ {
		batch.Queue("SELECT $1::int", i)
	}
	results := conn.SendBatch(always, batch)
	defer results.Close()
	for i := 0; i < 100; i++ {
		var n int
		if err := results.QueryRow().Scan(&n); err != nil || n != i {
			return fmt.Errorf("of a batch: %d, %v", n, err)
		}
	}
	return nil
}

func (c *client) copies(conn *pgx.Conn) error {
	if _, err := conn.Exec(always, "CREATE TABLE go_rows (a int, b text)"); err != nil {
		return err
	}
	source := pgx.CopyFromSlice(c.door.Rows, func(i int) ([]any, error) {
		return []any{i, strings.Repeat("x", 40)}, nil
	})
	n, err := conn.CopyFrom(always, pgx.Identifier{"go_rows"}, []string{"a", "b"}, source)
	if err != nil || int(n) != c.door.Rows {
		return fmt.Errorf("copied %d, %v", n, err)
	}
	var out bytes.Buffer
	if _, err = conn.PgConn().CopyTo(always, &out, "COPY go_rows TO STDOUT"); err != nil {
		return err
	}
	if seen := bytes.Count(out.Bytes(), []byte("\n")); seen != c.door.Rows {
		return fmt.Errorf("copied %d rows out", seen)
	}
	_, err = conn.Exec(always, "DROP TABLE go_rows")
	return err
}

func (c *client) large(conn *pgx.Conn) error {
	var text string
	err := conn.QueryRow(always, "SELECT repeat('z', $1)", c.door.Large).Scan(&text)
	if err != nil || len(text) != c.door.Large {
		return fmt.Errorf("%d bytes, %v", len(text), err)
	}
	rows, err := conn.Query(always, "SELECT generate_series(1, $1::int)", c.door.Rows)
	if err != nil {
		return err
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil || len(found) != c.door.Rows {
		return fmt.Errorf("%d rows, %v", len(found), err)
	}
	return nil
}

func (c *client) objects(conn *pgx.Conn) error {
	tx, err := conn.Begin(always)
	if err != nil {
		return err
	}
	defer tx.Rollback(always)
	objects := tx.LargeObjects()
	oid, err := objects.Create(always, 0)
	if err != nil {
		return err
	}
	object, err := objects.Open(always, oid, pgx.LargeObjectModeRead|pgx.LargeObjectModeWrite)
	if err != nil {
		return err
	}
	if _, err = object.Write([]byte("hello")); err != nil {
		return err
	}
	if _, err = object.Seek(0, io.SeekStart); err != nil {
		return err
	}
	read := make([]byte, 5)
	if _, err = io.ReadFull(object, read); err != nil || string(read) != "hello" {
		return fmt.Errorf("read %q, %v", read, err)
	}
	return nil
}

func (c *client) cancels(conn *pgx.Conn) error {
	go func() {
		time.Sleep(200 * time.Millisecond)
		_ = conn.PgConn().CancelRequest(always)
	}()
	_, err := conn.Exec(always, "SELECT pg_sleep(60)")
	return sqlstate(err, "57014")
}

func (c *client) settle() error {
	if _, err := c.listener.Exec(always, "LISTEN "+c.door.Channel); err != nil {
		return err
	}
	return c.withAll(func(session *pgxpool.Conn) error {
		if _, err := session.Exec(always, "SET work_mem = '"+c.door.WorkMem+"'"); err != nil {
			return err
		}
		return expect(session.Conn(), 2, "SELECT $1::int + 1", 1)
	})
}

func (c *client) check() error {
	return c.withAll(func(session *pgxpool.Conn) error {
		var found string
		err := session.QueryRow(always, "SHOW work_mem").Scan(&found)
		if err != nil || found != c.door.WorkMem {
			return fmt.Errorf("work_mem %s, %v", found, err)
		}
		return expect(session.Conn(), 42, "SELECT $1::int + 1", 41)
	})
}

func (c *client) heard() ([]string, error) {
	patient, stop := context.WithTimeout(always, 10*time.Second)
	defer stop()
	told, err := c.listener.WaitForNotification(patient)
	if err != nil {
		return nil, err
	}
	return []string{told.Payload}, nil
}

func (c *client) close() error {
	c.pool.Close()
	return c.listener.Close(always)
}

func say(found []string, err error) {
	answer := map[string]any{"ok": append([]string{}, found...)}
	if err != nil {
		answer = map[string]any{"failed": err.Error()}
	}
	line, _ := json.Marshal(answer)
	fmt.Println(string(line))
}

func main() {
	c := &client{}
	if err := json.Unmarshal([]byte(os.Args[len(os.Args)-1]), &c.door); err != nil {
		say(nil, err)
		return
	}
	say(nil, c.open())
	verbs := map[string]func() error{
		"exercise": c.exercise, "settle": c.settle, "check": c.check, "close": c.close,
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if lines.Text() == "heard" {
			say(c.heard())
		} else {
			say(nil, verbs[lines.Text()]())
		}
	}
}
