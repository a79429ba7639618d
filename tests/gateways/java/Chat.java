import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Collectors;

/**
 * Asks the service with the default client of Java, which offers HTTP/2 with every request to an http URL.
 *
 * Arguments: the base URL, and the file of a body. It prints one line for each thing that it tried.
 */
public class Chat {
    public static void main(String[] arguments) throws IOException, InterruptedException {
        URI base = URI.create(arguments[0]);
        String body = Files.readString(Path.of(arguments[1]));
        HttpClient client = HttpClient.newHttpClient();

        say("models", client.send(HttpRequest.newBuilder(at(base, "/models")).build(), HttpResponse.BodyHandlers.ofString()));
        say("chat", client.send(post(at(base, "/chat/completions"), body), HttpResponse.BodyHandlers.ofString()));
        String streamed = body.replaceFirst("\\{", "{\"stream\": true, ");
        HttpResponse<java.util.stream.Stream<String>> stream =
            client.send(post(at(base, "/chat/completions"), streamed), HttpResponse.BodyHandlers.ofLines());
        String lines = stream.body().filter(line -> !line.isEmpty()).collect(Collectors.joining(" "));
        System.out.println("stream " + stream.version() + " " + stream.statusCode() + " " + lines);
        say("error", client.send(post(at(base, "/chat/completions"), "{}"), HttpResponse.BodyHandlers.ofString()));
        // A body of unknown length goes in chunks.
        HttpRequest chunked = HttpRequest.newBuilder(at(base, "/chat/completions"))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(body.getBytes())))
            .build();
        say("chunked", client.send(chunked, HttpResponse.BodyHandlers.ofString()));
        HttpRequest patient = HttpRequest.newBuilder(at(base, "/chat/completions"))
            .header("Content-Type", "application/json")
            .expectContinue(true)
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        say("continue", client.send(patient, HttpResponse.BodyHandlers.ofString()));
        CompletableFuture<?>[] many = new CompletableFuture<?>[8];
        for (int i = 0; i < many.length; i++) {
            many[i] = client.sendAsync(post(at(base, "/chat/completions"), body), HttpResponse.BodyHandlers.ofString())
                .thenAccept(answer -> say("many", answer));
        }
        CompletableFuture.allOf(many).join();
    }

    private static URI at(URI base, String path) {
        return URI.create(base + path);
    }

    private static HttpRequest post(URI where, String body) {
        return HttpRequest.newBuilder(where)
            .header("Content-Type", "application/json")
            .header("Authorization", "Bearer any")
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
    }

    private static synchronized void say(String what, HttpResponse<String> answer) {
        System.out.println(what + " " + answer.version() + " " + answer.statusCode() + " " + answer.body().replace("\n", " "));
    }
}
