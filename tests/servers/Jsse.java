// A small HTTPS server on Java's JSSE, with everything on that its files of settings switch off.
//
//   java Jsse p12=FILE password=WORD versions=TLSv1,... ciphers=SUITE,... [groups=secp256r1,...] [dh=1024]
//
// Speaks as serve.c does.
import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.Security;
import java.util.HashMap;
import java.util.Map;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

public class Jsse {
    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (String argument : arguments) {
            int at = argument.indexOf('=');
            options.put(argument.substring(0, at), argument.substring(at + 1));
        }
        Security.setProperty("jdk.tls.disabledAlgorithms", "");
        Security.setProperty("jdk.tls.legacyAlgorithms", "");
        Security.setProperty("jdk.certpath.disabledAlgorithms", "");
        System.setProperty("jdk.tls.ephemeralDHKeySize", options.getOrDefault("dh", "2048"));
        if (options.containsKey("groups")) {
            System.setProperty("jdk.tls.namedGroups", options.get("groups"));
        }

        char[] password = options.get("password").toCharArray();
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream file = new FileInputStream(options.get("p12"))) {
            store.load(file, password);
        }
        KeyManagerFactory keys = KeyManagerFactory.getInstance("SunX509");
        keys.init(store, password);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), null, null);
        SSLServerSocket server = (SSLServerSocket) context.getServerSocketFactory()
            .createServerSocket(0, 64, InetAddress.getByName("127.0.0.1"));
        server.setEnabledProtocols(options.get("versions").split(","));
        server.setEnabledCipherSuites(options.get("ciphers").split(","));
        System.out.println("listening " + server.getLocalPort() + " JSSE " + Runtime.version().feature());
        while (true) {
            SSLSocket connection = (SSLSocket) server.accept();
            Thread thread = new Thread(() -> serve(connection));
            thread.setDaemon(true);
            thread.start();
        }
    }

    private static void serve(SSLSocket connection) {
        try (connection) {
            connection.setTcpNoDelay(true);
            InputStream in = new BufferedInputStream(connection.getInputStream(), 16384);
            OutputStream out = connection.getOutputStream();
            while (answer(in, out)) {
            }
        } catch (IOException error) {
            System.err.println(error);
        }
    }

    private static boolean answer(InputStream in, OutputStream out) throws IOException {
        String head = head(in);
        if (head == null) {
            return false;
        }
        byte[] body = {};
        String status = "404 Not Found\r\nServer: Microsoft-IIS/8.5";
        if (head.startsWith("POST /echo ")) {
            int length = 0;
            for (String line : head.split("\r\n")) {
                if (line.toLowerCase().startsWith("content-length:")) {
                    length = Integer.parseInt(line.substring(15).trim());
                }
            }
            body = in.readNBytes(length);
            status = "200 OK";
        } else if (head.startsWith("GET /EWS/Exchange.asmx ")) {
            status = "401 Unauthorized\r\nServer: Microsoft-IIS/8.5\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM";
        }
        String answer = "HTTP/1.1 " + status + "\r\nContent-Length: " + body.length + "\r\n\r\n";
        out.write(answer.getBytes(StandardCharsets.US_ASCII));
        out.write(body);
        out.flush();
        return !head.toLowerCase().contains("\r\nconnection: close");
    }

    private static String head(InputStream in) throws IOException {
        ByteArrayOutputStream head = new ByteArrayOutputStream();
        while (!head.toString(StandardCharsets.US_ASCII).endsWith("\r\n\r\n")) {
            int letter = in.read();
            if (letter < 0) {
                return null;
            }
            head.write(letter);
        }
        return head.toString(StandardCharsets.US_ASCII);
    }
}
