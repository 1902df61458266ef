//! Every server that we could get hold of works: probed, added, served, and with no switch more than it
//! needs. The outcome is the table of docs/compatibility.md.

mod cli_support;
mod common;
#[allow(unreachable_pub)]
#[path = "compatibility/configurations.rs"]
mod configurations;
#[allow(unreachable_pub)]
#[path = "compatibility/table.rs"]
mod table;

use std::fs;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, split};
use toml_edit::{DocumentMut, Item};

use cli_support::{EWSBRIDGE, Live, Outcome, Sandbox, free_port};
use common::{Client, Stream, connect, read_response, within};
use configurations::{ALL, Configuration, Material, Running};
use table::{Row, compare, needed_by};

/// Servers at a time. Most of the time goes by in pauses between connections.
const AT_ONCE: usize = 6;
/// The longest that one command may take: `probe` gives a slow server two minutes.
const LIMIT: Duration = Duration::from_secs(150);
/// A request without an answer by then gets none.
const SILENCE: Duration = Duration::from_secs(3);
const NAME: &str = "exch1";

#[test]
fn every_server_is_probed_added_with_what_it_needs_and_no_more_and_carries_a_mebibyte() {
    let material = Material::new();
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(configuration) = ALL.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let began = Instant::now();
                    let row = catch_unwind(AssertUnwindSafe(|| works(configuration, &material)));
                    tell(configuration, &row, began.elapsed());
                    rows.lock().expect("no panic while held").push(row.ok());
                }
            });
        }
    });
    let rows = rows.into_inner().expect("no panic while held");
    let failed = rows.iter().filter(|row| row.is_none()).count();
    assert_eq!(failed, 0, "of {} servers so many failed, each as shown above", ALL.len());
    let mut rows: Vec<Row> = rows.into_iter().flatten().collect();
    rows.sort_by_key(|row| (row.library.to_lowercase(), row.besides.clone(), row.setting.clone()));
    is_broad(&rows);
    compare(&rows);
}

/// Shown while the test runs: it takes minutes.
fn tell(configuration: &Configuration, row: &std::thread::Result<Row>, took: Duration) {
    let text = match row {
        Ok(row) => row.line(),
        Err(cause) => {
            let cause = cause.downcast_ref::<String>().map(String::as_str);
            let cause = cause.unwrap_or("failed");
            format!("FAILED: {} ({}): {cause}", configuration.setting(), configuration.besides())
        }
    };
    let _ = writeln!(std::io::stderr(), "{:5.1} s {text}", took.as_secs_f64());
}

/// What issue and documentation promise of the whole.
fn is_broad(rows: &[Row]) {
    let libraries: std::collections::BTreeSet<&str> = rows.iter().map(Row::library_name).collect();
    assert!(rows.len() >= 40 && libraries.len() >= 6, "{} servers, {libraries:?}", rows.len());
    let needed = needed_by(rows);
    for switch in ["max_tls", "security_level", "no-rfc5746", "extensions", "dhe", "3des", "rc4", "empty_fragments"] {
        assert!(needed.get(switch).is_some_and(|libraries| libraries.len() >= 2), "{switch}: {needed:?}");
    }
    let several = rows.iter().filter(|row| row.switches().len() > 1).count();
    assert!(several >= 5, "only {several} servers need two switches at once");
}

/// One server's way from an address to a forwarder, and what each switch is good for.
fn works(configuration: &Configuration, material: &Material) -> Row {
    let server = configuration.start(material);
    let sandbox = Sandbox::new();
    let target = format!("{}:{}", configuration.host, server.port);
    let port = free_port();
    if configuration.insists_on_its_name() {
        let by_address = format!("127.0.0.1:{}", server.port);
        let words = ["add", NAME, &format!("127.0.0.1:{port}"), &by_address, "--insecure", "--no-input"];
        finish(&mut sandbox.command(words)).exited(1).says("TLS handshake: ");
    }
    let next = probed(&sandbox, configuration, &server, &target);
    let added = added(&sandbox, configuration, &server, &target, port, &next);

    let text = sandbox.text(NAME);
    let file: DocumentMut = text.parse().expect("TOML");
    let needs = switches(&file);
    assert_eq!(needs, configuration.needs, "{target}\n{}", added.all());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ca = fs::read_to_string(sandbox.ca(NAME)).expect("the CA");
    {
        let _server = sandbox.serve(NAME);
        runtime.block_on(carries_a_mebibyte(port, &ca));
    }
    for (switch, less) in each_less(&file) {
        fs::write(sandbox.settings(NAME), less).expect("the forwarder's file");
        // At a level above 0 there is no version below 1.2, and a file that asks for that is refused.
        let check = finish(&mut sandbox.command(["run", "--check", NAME]));
        if check.code == 78 {
            assert!(check.stderr.contains("needs TLS 1.2") && switch.starts_with("security_level"), "{}", check.all());
            continue;
        }
        let bridge = sandbox.serve(NAME);
        let enough = runtime.block_on(is_enough(port, &ca, &switch));
        assert!(!enough, "{target} works without {switch}\n{}", bridge.said());
    }
    Row {
        library: server.library.line(),
        setting: configuration.setting(),
        besides: configuration.besides(),
        spoken: spoken(&added),
        needs,
    }
}

/// What `probe` says of it, and the command with which that ends.
fn probed(sandbox: &Sandbox, configuration: &Configuration, server: &Running, target: &str) -> String {
    let mut words = vec!["probe", target, "--json"];
    words.extend(configuration.sni.iter().flat_map(|name| ["--sni", name]));
    let outcome = finish(&mut sandbox.command(&words)).succeeded();
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert!(report["connections"].as_u64().is_some_and(|count| count <= 25), "{report:#}");
    assert_eq!(report["certificates"][0]["sha256"], server.certificate.pin(), "{report:#}");
    assert_eq!(report["ews"]["status"], 401, "{report:#}");
    let needs = &report["needs"];
    let (newest, bare) = (needs["max_tls"].as_str().expect("a version"), needs["extensions"] == false);
    let mut lines = Vec::new();
    // Without extensions there is no TLS 1.2 anyway.
    if newest < if bare { "1.1" } else { "1.2" } {
        lines.push(format!("max_tls = \"{newest}\""));
    }
    for (key, modern) in [("security_level", json!(2)), ("extensions", json!(true)), ("empty_fragments", json!(true))] {
        if needs[key] != modern {
            lines.push(format!("{key} = {}", needs[key]));
        }
    }
    if needs["allow_weak"] != json!([]) {
        lines.push(format!("allow_weak = {}", needs["allow_weak"]).replace(',', ", "));
    }
    assert_eq!(lines, configuration.needs, "{report:#}");
    report["next"].as_str().expect("a command").to_owned()
}

/// Adds the forwarder by the command that `probe` gives; where weak things are needed, by the one that
/// `add` gives when it refuses them.
fn added(
    sandbox: &Sandbox,
    configuration: &Configuration,
    server: &Running,
    target: &str,
    port: u16,
    next: &str,
) -> Outcome {
    let (listen, pin) = (format!("127.0.0.1:{port}"), server.certificate.pin());
    let next = next.replace("NAME PORT", &format!("{NAME} {listen}"));
    if !configuration.needs.iter().any(|need| need.starts_with("allow_weak")) {
        return pasted(sandbox, &format!("{next} --no-input"));
    }
    let mut words = vec!["add", NAME, &listen, target, "--pin", &pin, "--no-input"];
    words.extend(configuration.sni.iter().flat_map(|name| ["--sni", name]));
    let refused = finish(&mut sandbox.command(&words)).exited(5);
    let refused = refused.says("the server can't do without what is weak: ");
    assert!(!sandbox.settings(NAME).exists(), "a refused add left its file");
    let hint = "hint: better on the server; if it can't be changed: ";
    let cure = refused.stderr.lines().find_map(|line| line.strip_prefix(hint)).expect("a cure");
    let allows = |command: &str| command.split(' ').find(|word| word.starts_with("--allow-weak=")).map(str::to_owned);
    assert_eq!(allows(&next), allows(cure), "{next}\n{cure}");
    pasted(sandbox, cure)
}

/// Runs a command that was printed.
fn pasted(sandbox: &Sandbox, command: &str) -> Outcome {
    let arguments = command.strip_prefix("ewsbridge ").unwrap_or_else(|| panic!("not ours: {command}"));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{EWSBRIDGE} {arguments}"));
    sandbox.surround(&mut shell);
    finish(&mut shell).succeeded()
}

/// Runs a command to its end, however long a server hangs.
fn finish(command: &mut Command) -> Outcome {
    let (began, mut live) = (Instant::now(), Live::spawn(command));
    while live.is_alive() {
        assert!(began.elapsed() < LIMIT, "no end within {LIMIT:?}: {command:?}\n{}", live.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    live.finish()
}

/// `TLS 1.0 AES128-SHA`, from what `add` tells.
fn spoken(added: &Outcome) -> String {
    let text = added.stderr.split("target speaks ").nth(1).and_then(|rest| rest.split(',').next());
    text.unwrap_or_else(|| panic!("what does it speak?\n{}", added.stderr)).to_owned()
}

/// The lines by which a file differs from a modern server's; behind each stands its reason.
fn switches(file: &DocumentMut) -> Vec<String> {
    let mut lines = Vec::new();
    for key in ["max_tls", "security_level", "extensions", "empty_fragments", "allow_weak"] {
        let Some(mut value) = file.get(key).and_then(Item::as_value).cloned() else { continue };
        let reason = value.decor().suffix().and_then(toml_edit::RawString::as_str).unwrap_or_default();
        assert!(reason.starts_with(" # auto: "), "{key} has no reason: {reason:?}");
        value.decor_mut().clear();
        lines.push(format!("{key} = {value}"));
    }
    lines.retain(|line| line != "security_level = 2");
    lines
}

/// The file with each switch taken away in turn.
fn each_less(file: &DocumentMut) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut less = |switch: &str, value: Option<Item>| {
        let mut file = file.clone();
        let key = switch.split(' ').next().unwrap_or_default();
        match value {
            Some(value) => file[key] = value,
            None => _ = file.remove(key),
        }
        // A device that hangs is given up sooner, one that takes 6 s is not.
        file["handshake_timeout"] = toml_edit::value("8s");
        all.push((switch.to_owned(), file.to_string()));
    };
    for key in ["max_tls", "extensions", "empty_fragments"].into_iter().filter(|key| file.contains_key(key)) {
        less(key, None);
    }
    match file["security_level"].as_integer().expect("a level") {
        2 => {}
        level => less("security_level", Some(toml_edit::value(level + 1))),
    }
    let allowed: Vec<&str> = file
        .get("allow_weak")
        .and_then(Item::as_array)
        .map_or(Vec::new(), |words| words.iter().map(|word| word.as_str().expect("a word")).collect());
    for word in &allowed {
        let rest: toml_edit::Array = allowed.iter().filter(|other| other != &word).copied().collect();
        less(&format!("allow_weak {word}"), Some(toml_edit::value(rest)));
    }
    all
}

/// 1 MiB there and back, every byte.
async fn carries_a_mebibyte(port: u16, ca: &str) {
    let client = client(port, ca).await.unwrap_or_else(|failure| panic!("client: {failure:?}"));
    let body = Stream::bytes("compatibility", 1 << 20);
    let (mut down, mut up) = split(client.0);
    let head = format!("POST /echo HTTP/1.1\r\nHost: exchange\r\nContent-Length: {}\r\n\r\n", body.len());
    let send = async {
        up.write_all(head.as_bytes()).await.expect("the head");
        up.write_all(&body).await.expect("the body");
        up.flush().await.expect("all of it");
    };
    let (answer, ()) = within("1 MiB", async { tokio::join!(read_response(&mut down), send) }).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "other bytes came back, {} of {}", answer.body.len(), body.len());
}

/// Whether a server answers without the switch. Empty records are stumbled over after the handshake; all
/// else in it.
async fn is_enough(port: u16, ca: &str, switch: &str) -> bool {
    let Ok(mut client) = client(port, ca).await else { return false };
    if switch != "empty_fragments" {
        return true;
    }
    client.send(b"GET /EWS/Exchange.asmx HTTP/1.1\r\nHost: exchange\r\nConnection: close\r\n\r\n").await;
    let answer = tokio::time::timeout(SILENCE, client.receive_all()).await;
    answer.is_ok_and(|(bytes, _)| !bytes.is_empty())
}

async fn client(port: u16, ca: &str) -> Result<Client, common::Failure> {
    connect(([127, 0, 0, 1], port).into(), ca, "127.0.0.1").await
}
