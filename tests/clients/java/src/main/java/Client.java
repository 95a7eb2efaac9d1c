import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

/** JDBC: some sessions, of which the first listens. See ../programs.py for what it is told. */
public final class Client {
    private final String door;
    private final List<Connection> sessions = new ArrayList<>();
    private final List<PreparedStatement> kept = new ArrayList<>();

    private Client(String door) throws SQLException {
        this.door = door;
        for (long i = 0; i < number("sessions"); i++) {
            sessions.add(DriverManager.getConnection(url(), facts()));
        }
    }

    private String text(String name) {
        Matcher found = Pattern.compile("\"" + name + "\": \"([^\"]*)\"").matcher(door);
        return found.find() ? found.group(1) : "";
    }

    private long number(String name) {
        Matcher found = Pattern.compile("\"" + name + "\": (\\d+)").matcher(door);
        return found.find() ? Long.parseLong(found.group(1)) : 0;
    }

    private String url() {
        return "jdbc:postgresql://" + text("host") + ":" + number("port") + "/" + text("database");
    }

    private Properties facts() {
        Properties facts = new Properties();
        facts.setProperty("user", text("user"));
        facts.setProperty("password", text("password"));
        facts.setProperty("prepareThreshold", "1");
        if (text("certificate").isEmpty()) {
            facts.setProperty("sslmode", "disable");
        } else {
            facts.setProperty("sslmode", "verify-full");
            facts.setProperty("sslrootcert", text("certificate"));
            facts.setProperty("channelBinding", "require");
            if (!text("direct").isEmpty()) {
                facts.setProperty("sslNegotiation", "direct");
            }
        }
        return facts;
    }

    private static void hold(boolean fact, String what) {
        if (!fact) {
            throw new IllegalStateException(what);
        }
    }

    private static String one(Connection session, String query) throws SQLException {
        try (Statement statement = session.createStatement();
                ResultSet found = statement.executeQuery(query)) {
            found.next();
            return found.getString(1);
        }
    }

    private static void run(Connection session, String query) throws SQLException {
        try (Statement statement = session.createStatement()) {
            statement.execute(query);
        }
    }

    private static void fails(Connection session, String query, String state) throws SQLException {
        try {
            run(session, query);
        } catch (SQLException error) {
            hold(state.equals(error.getSQLState()), query + ": " + error);
            return;
        }
        hold(false, query + " did not fail");
    }

    private void exercise() throws Exception {
        Connection session = sessions.get(1);
        fails(session, "SELECT 1 / 0", "22012");
        batches(session);
        copies(session);
        hold(one(session, "SELECT repeat('z', " + number("large") + ")").length()
            == number("large"), "a large value");
        cursors(session);
        objects(session);
        cancels(session);
        Properties simple = facts();
        simple.setProperty("preferQueryMode", "simple");
        try (Connection other = DriverManager.getConnection(url(), simple)) {
            hold("7".equals(one(other, "SELECT 7")), "a simple query");
        }
    }

    private void batches(Connection session) throws SQLException {
        run(session, "CREATE TABLE java_batch (a int)");
        try (PreparedStatement insert =
                session.prepareStatement("INSERT INTO java_batch VALUES (?)")) {
            for (int i = 0; i < 1000; i++) {
                insert.setInt(1, i);
                insert.addBatch();
            }
            hold(insert.executeBatch().length == 1000, "a batch");
        }
        hold("1000".equals(one(session, "SELECT count(*) FROM java_batch")), "rows of a batch");
        run(session, "DROP TABLE java_batch");
    }

    private void copies(Connection session) throws Exception {
        run(session, "CREATE TABLE java_rows (a int, b text)");
        StringBuilder rows = new StringBuilder();
        for (long i = 0; i < number("rows"); i++) {
            rows.append(i).append('\t').append("x".repeat(40)).append('\n');
        }
        byte[] told = rows.toString().getBytes(StandardCharsets.UTF_8);
        PGConnection copier = session.unwrap(PGConnection.class);
        copier.getCopyAPI().copyIn("COPY java_rows FROM STDIN", new ByteArrayInputStream(told));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        copier.getCopyAPI().copyOut("COPY java_rows TO STDOUT", out);
        hold(out.size() == told.length, "copied bytes");
        run(session, "DROP TABLE java_rows");
    }

    private void cursors(Connection session) throws SQLException {
        session.setAutoCommit(false);
        try (Statement statement = session.createStatement()) {
            statement.setFetchSize(100);
            ResultSet rows =
                statement.executeQuery("SELECT generate_series(1, " + number("rows") + ")");
            long seen = 0;
            while (rows.next()) {
                seen++;
            }
            hold(seen == number("rows"), "rows of a cursor");
        }
        session.commit();
        session.setAutoCommit(true);
    }

    /** By the protocol's FunctionCall. */
    private void objects(Connection session) throws SQLException {
        session.setAutoCommit(false);
        LargeObjectManager manager = session.unwrap(PGConnection.class).getLargeObjectAPI();
        long oid = manager.createLO();
        LargeObject object = manager.open(oid, LargeObjectManager.READWRITE);
        object.write("hello".getBytes(StandardCharsets.UTF_8));
        object.seek(0);
        hold(new String(object.read(5), StandardCharsets.UTF_8).equals("hello"), "an object");
        object.close();
        session.rollback();
        session.setAutoCommit(true);
    }

    private void cancels(Connection session) throws Exception {
        try (Statement statement = session.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(200);
                    statement.cancel();
                } catch (Exception error) {
                    System.err.println(error);
                }
            });
            canceller.start();
            try {
                statement.execute("SELECT pg_sleep(60)");
                hold(false, "it was not cancelled");
            } catch (SQLException error) {
                hold("57014".equals(error.getSQLState()), error.toString());
            }
            canceller.join();
        }
    }

    private void settle() throws SQLException {
        for (Connection session : sessions) {
            run(session, "SET work_mem = '" + text("work_mem") + "'");
            PreparedStatement statement = session.prepareStatement("SELECT ?::int + 1");
            kept.add(statement);
            more(statement, 1);
        }
        run(sessions.get(0), "LISTEN " + text("channel"));
    }

    private static void more(PreparedStatement statement, int value) throws SQLException {
        statement.setInt(1, value);
        try (ResultSet found = statement.executeQuery()) {
            found.next();
            hold(found.getInt(1) == value + 1, "a prepared statement");
        }
    }

    private void check() throws SQLException {
        for (PreparedStatement statement : kept) {
            more(statement, 41);
        }
        for (Connection session : sessions) {
            hold(text("work_mem").equals(one(session, "SHOW work_mem")), "work_mem");
        }
    }

    private List<String> heard() throws SQLException {
        List<String> found = new ArrayList<>();
        for (PGNotification told
                : sessions.get(0).unwrap(PGConnection.class).getNotifications(10_000)) {
            found.add("\"" + told.getParameter() + "\"");
        }
        return found;
    }

    private List<String> obey(String verb) throws Exception {
        switch (verb) {
            case "exercise" -> exercise();
            case "settle" -> settle();
            case "check" -> check();
            case "heard" -> {
                return heard();
            }
            default -> {
                for (Connection session : sessions) {
                    session.close();
                }
            }
        }
        return List.of();
    }

    private static void failed(Exception error) {
        String why = error.toString().replaceAll("[\"\\\\\\p{Cntrl}]", " ");
        System.out.println("{\"failed\": \"" + why + "\"}");
    }

    public static void main(String[] arguments) throws Exception {
        Client client = new Client(arguments[arguments.length - 1]);
        System.out.println("{\"ok\": []}");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String verb = lines.readLine(); verb != null; verb = lines.readLine()) {
            try {
                System.out.println("{\"ok\": [" + String.join(", ", client.obey(verb)) + "]}");
            } catch (Exception error) {
                failed(error);
            }
        }
    }
}
