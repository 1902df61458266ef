//! `add`: from three words to a forwarder that is proved to work, or to nothing at all.

mod cli_support;

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use cli_support::{
    Authority, Certificate, Leaf, Live, SServer, Sandbox, free_port, run_to_end, s_client, tcp_target, tls_target_for,
};

/// A sandbox and a TLS 1.0 server with a certificate that nothing here trusts.
fn legacy() -> (Sandbox, Certificate, SServer) {
    let sandbox = Sandbox::new();
    let certificate = Certificate::self_signed(sandbox.material.path(), "EXCH1");
    let target = SServer::tls1(&certificate);
    (sandbox, certificate, target)
}

fn here(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[test]
fn add_proves_the_path_writes_the_file_and_run_serves_it() {
    let (sandbox, certificate, target) = legacy();
    let port = free_port();
    let added = sandbox
        .run(["add", "exch1", &here(port), &target.address(), "--pin", &certificate.pin()])
        .succeeded()
        .says("target speaks TLS 1.0 ")
        .says("proved: TLS 1.3 in, TLS 1.0 out, /EWS/Exchange.asmx answers 200");
    assert!(added.stdout.contains("exch1 is ready in "), "{}", added.stdout);
    assert!(
        added.stdout.contains("  2. Print the certificate to paste: ewsbridge cert show exch1\n"),
        "{}",
        added.stdout
    );

    let text = sandbox.text("exch1");
    let has = |line: &str| text.lines().any(|other| other.split(" #").next().is_some_and(|other| other.trim() == line));
    assert!(has("format = 1") && has(&format!("listen = \"127.0.0.1:{port}\"")), "{text}");
    assert!(has(&format!("target = \"{}\"", target.address())), "{text}");
    assert!(has(&format!("pin = [\"{}\"]", certificate.pin())), "{text}");
    sandbox.run(["run", "--check", "exch1"]).succeeded().says("exch1: the settings are in order");

    let ca = sandbox.ca("exch1");
    let _server = sandbox.serve("exch1");
    s_client(port, &ca).succeeded().says("Verification: OK").says("New, TLSv1.3, ");
    sandbox.run(["check", "exch1"]).succeeded().says("exch1: the path works; ");
}

#[test]
fn the_same_add_again_is_nothing_to_do() {
    let (sandbox, certificate, target) = legacy();
    let port = here(free_port());
    let words = ["add", "exch1", &port, &target.address(), "--pin", &certificate.pin()];
    sandbox.run(words).succeeded();
    let before = sandbox.tree();
    let again = sandbox.run(words).succeeded();
    assert_eq!(again.stdout, format!("exch1: nothing to do, it is there: {port} -> {}\n", target.address()));
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn another_target_under_the_same_name_is_refused_with_the_command_to_change_it() {
    let (sandbox, _, _target) = legacy();
    let port = here(free_port());
    sandbox.run(["add", "exch1", &port, "192.0.2.1:443", "--offline"]).succeeded();
    let before = sandbox.tree();
    let refused = sandbox.run(["add", "exch1", &port, "192.0.2.2:443", "--offline"]).exited(1);
    let file = sandbox.settings("exch1");
    assert_eq!(
        refused.stderr,
        format!(
            "exch1: the name is taken: {port} -> 192.0.2.1:443 in {}\n\
             hint: choose another name, or change it: ewsbridge set exch1 KEY=VALUE\n",
            file.display()
        )
    );
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn an_untrusted_certificate_without_a_terminal_stops_with_the_exact_commands() {
    let (sandbox, certificate, target) = legacy();
    let before = sandbox.tree();
    let words = ["add", "exch1", &here(free_port()), &target.address()].map(str::to_owned);
    let stopped = sandbox.run(&words).exited(5);
    let again = format!("ewsbridge {}", words.join(" "));
    assert_eq!(
        stopped.error(),
        format!(
            "exch1: target {}: certificate: self-signed, not trusted\n\
             hint: compare it, then run one of\n  {again} --pin {}\n  {again} --ca FILE\n",
            target.address(),
            certificate.pin()
        )
    );
    assert!(stopped.stdout.is_empty(), "{}", stopped.stdout);
    for shown in ["subject     CN=EXCH1; names 127.0.0.1\n", "Thumbprint  ", &certificate.pin()] {
        assert!(stopped.stderr.contains(shown), "{}", stopped.stderr);
    }
    assert_eq!(sandbox.tree(), before);

    // What it prints can be pasted.
    let mut pasted = Command::new("sh");
    let line = stopped.stderr.lines().find(|line| line.contains(" --pin ")).expect("a command");
    pasted.arg("-c").arg(line.trim().replacen("ewsbridge", cli_support::EWSBRIDGE, 1));
    sandbox.surround(&mut pasted);
    run_to_end(&mut pasted).succeeded().says("exch1 is ready in ");
}

#[test]
fn the_commands_to_choose_from_keep_what_else_was_typed() {
    let sandbox = Sandbox::new();
    let authority = Authority::new(sandbox.material.path());
    let leaf = Leaf { loopback: false, dns: &["exch1.corp"], ..Leaf::default() };
    let leaf = leaf.issue(sandbox.material.path(), Some(&authority));
    let target = SServer::tls1(&leaf);
    let ca = authority.0.cert.display().to_string();
    let words = ["add", "exch1", &here(free_port()), &target.address(), "--san", "mail corp"];
    let refused = sandbox.run(words).exited(2);
    assert!(refused.stderr.starts_with("--san: 'mail corp' is neither a host name nor an IP address"), "{refused:?}");

    let words = ["add", "exch1", words[2], words[3], "--ca", &ca, "--san", "mail.corp"];
    let stopped = sandbox.run(words).exited(5);
    let (typed, short) = (words.join(" "), format!("add exch1 {} {} --san mail.corp", words[2], words[3]));
    assert_eq!(
        stopped.error(),
        format!(
            "exch1: target {}: certificate: it is made out for exch1.corp, not for 127.0.0.1\n\
             hint: compare it, then run one of\n  ewsbridge {short} --pin {}\n  ewsbridge {typed} --accept wrong-name\n",
            target.address(),
            leaf.pin()
        )
    );
    // With a terminal, a pin takes the place of the authority.
    sandbox.run_on_terminal(&words, "[yes/no/fingerprint] ", "yes\n").succeeded();
    assert!(sandbox.text("exch1").contains("\n#ca "), "{}", sandbox.text("exch1"));
    sandbox.run(["remove", "exch1"]).succeeded();
    sandbox.run(words.into_iter().chain(["--accept", "wrong-name"])).succeeded();
}

#[test]
fn yes_on_a_terminal_pins_what_was_shown() {
    let (sandbox, certificate, target) = legacy();
    let words = ["add", "exch1", &here(free_port()), &target.address()];
    let added = sandbox.run_on_terminal(&words, "Pin it for exch1? [yes/no/fingerprint] ", "yes\n").succeeded();
    added.says("Get-ExchangeCertificate | Format-List Subject,NotAfter,Thumbprint").says("exch1 is ready in ");
    assert!(sandbox.text("exch1").contains(&format!("\npin = [\"{}\"]", certificate.pin())));
}

#[test]
fn the_fingerprint_itself_is_an_answer_too() {
    let (sandbox, certificate, target) = legacy();
    let words = ["add", "exch1", &here(free_port()), &target.address()];
    let pasted = format!("{}\n", certificate.pin().trim_start_matches("sha256:").to_uppercase());
    sandbox.run_on_terminal(&words, "[yes/no/fingerprint] ", &pasted).succeeded();
    assert!(sandbox.text("exch1").contains(&format!("\npin = [\"{}\"]", certificate.pin())));
}

#[test]
fn enter_alone_no_and_a_wrong_fingerprint_refuse() {
    let (sandbox, certificate, target) = legacy();
    let before = sandbox.tree();
    let wrong = format!("sha256:{}\n", "ab".repeat(32));
    let thumbprint = format!("{}\n", "AB".repeat(20));
    for (answer, said) in [
        ("\n", "not pinned\nhint: nothing was changed\n"),
        ("no\n", "not pinned\nhint: nothing was changed\n"),
        ("y\n", "not pinned: a fingerprint is sha256: and 64 hexadecimal digits\n"),
        (&thumbprint, "not pinned: a SHA-1 thumbprint (40 digits) can't be a pin; give the SHA-256 fingerprint"),
        (
            &wrong,
            "the fingerprint does not match: this is not the certificate that you expect\nhint: nothing was changed\n",
        ),
    ] {
        let words = ["add", "exch1", &here(free_port()), &target.address()];
        sandbox.run_on_terminal(&words, "[yes/no/fingerprint] ", answer).exited(1).says(said);
        assert_eq!(sandbox.tree(), before, "after {answer:?}");
    }
    drop(certificate);
}

#[test]
fn no_input_asks_nobody_even_on_a_terminal() {
    let (sandbox, _, target) = legacy();
    let words = ["add", "exch1", &here(free_port()), &target.address(), "--no-input"];
    sandbox.run_on_terminal(&words, "hint: compare it, then run one of", "").exited(5);
}

#[test]
fn control_c_at_the_question_leaves_nothing() {
    let (sandbox, _, target) = legacy();
    let before = sandbox.tree();
    let words = ["add", "exch1", &here(free_port()), &target.address()];
    sandbox.run_on_terminal(&words, "[yes/no/fingerprint] ", "\x03").exited(130).says("interrupted");
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn offline_writes_without_asking_the_target() {
    let sandbox = Sandbox::new();
    let port = free_port();
    sandbox
        .run(["add", "exch1", &here(port), "no-such-host.invalid:443", "--offline"])
        .succeeded()
        .says("skip  the target was not asked (--offline)");
    assert!(sandbox.text("exch1").contains("\ntarget = \"no-such-host.invalid:443\""));
    sandbox.run(["run", "--check", "exch1"]).succeeded();
}

#[test]
fn ca_copies_the_file_beside_the_settings() {
    let sandbox = Sandbox::new();
    let authority = Authority::new(sandbox.material.path());
    let target = SServer::tls1(&Leaf::default().issue(sandbox.material.path(), Some(&authority)));
    let given = authority.0.cert.display().to_string();
    sandbox.run(["add", "exch1", &here(free_port()), &target.address(), "--ca", &given]).succeeded();
    let copy = sandbox.etc().join("forwarders/exch1.ca.pem");
    assert_eq!(fs::read_to_string(&copy).expect("the copy"), authority.0.pem());
    assert!(sandbox.text("exch1").contains(&format!("\nca = \"{}\"", copy.display())));
    // From now on the given file is not needed.
    fs::remove_file(&authority.0.cert).expect("removed");
    let _server = sandbox.serve("exch1");
    sandbox.run(["check", "exch1"]).succeeded().says(&format!("trusted by {}", copy.display()));
}

#[test]
fn insecure_is_shown_as_none_in_the_list() {
    let (sandbox, _, target) = legacy();
    let port = here(free_port());
    sandbox
        .run(["add", "exch1", &port, &target.address(), "--insecure"])
        .succeeded()
        .says("warn  the target's certificate is not verified (insecure = true)");
    let list = sandbox.run(["list"]).succeeded().stdout;
    let row: Vec<&str> = list.lines().nth(1).expect("a row").split_whitespace().take(5).collect();
    assert_eq!(row, ["exch1", "-", &port, &target.address(), "NONE"], "{list}");
}

#[test]
fn a_foreign_certificate_and_key_are_served() {
    let (sandbox, certificate, target) = legacy();
    let authority = Authority::new(sandbox.material.path());
    let own = Leaf { name: "mail.corp", dns: &["mail.corp"], ..Leaf::default() };
    let own = own.issue(sandbox.material.path(), Some(&authority));
    let port = free_port();
    let (cert, key) = (own.cert.display().to_string(), own.key.display().to_string());
    let words = ["add", "exch1", &here(port), &target.address(), "--pin", &certificate.pin()];
    sandbox
        .run(words.into_iter().chain(["--cert", &cert, "--key", &key]))
        .succeeded()
        .says(&format!("copied from {cert}, and again whenever it changes"));
    let _server = sandbox.serve("exch1");
    s_client(port, &authority.0.cert).succeeded().says("subject=CN = mail.corp").says("Verification: OK");
    assert!(!sandbox.var().join("ca").exists(), "a local CA was made for nothing");
}

#[test]
fn a_pfx_file_as_an_old_windows_encrypts_it_is_served() {
    let (sandbox, certificate, target) = legacy();
    let own = Certificate::self_signed(sandbox.material.path(), "mail.corp");
    let pfx = sandbox.material.path().join("exchange.pfx");
    let mut export = Command::new("openssl");
    export.args(["pkcs12", "-export", "-legacy", "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-3DES"]);
    export.args(["-passout", "pass:Geheim 1", "-in"]).arg(&own.cert).arg("-inkey").arg(&own.key).arg("-out").arg(&pfx);
    run_to_end(&mut export).succeeded();
    let (pfx, port) = (pfx.display().to_string(), free_port());
    let words = ["add", "exch1", &here(port), &target.address(), "--pin", &certificate.pin(), "--pfx", &pfx];
    let before = sandbox.tree();

    let wrong = sandbox.put("wrong", "Geheim 2\n").display().to_string();
    let refused = sandbox.run(words.into_iter().chain(["--pfx-password-file", &wrong])).exited(1);
    assert_eq!(refused.error(), format!("{pfx}: PFX: decrypt: wrong password\n"));
    let refused = sandbox.run(words).exited(5);
    assert_eq!(refused.error(), format!("{pfx}: its password is needed\nhint: --pfx-password-file FILE\n"));
    assert_eq!(sandbox.tree(), before);

    let right = sandbox.put("right", "Geheim 1\n").display().to_string();
    sandbox
        .run(words.into_iter().chain(["--pfx-password-file", &right]))
        .succeeded()
        .says(&format!("taken from {pfx}"));
    let _server = sandbox.serve("exch1");
    s_client(port, &own.cert).succeeded().says("subject=CN = mail.corp").says("Verification: OK");
}

#[test]
fn a_signal_while_the_target_stalls_leaves_nothing() {
    for (signal, code, said) in [(Signal::SIGINT, 130, "interrupted"), (Signal::SIGTERM, 143, "terminated")] {
        for sandbox in [Sandbox::new(), Sandbox::with_another()] {
            let before = sandbox.tree();
            let silent = tcp_target(b"", b"").to_string();
            let words = ["add", "exch1", &here(free_port()), &silent, "--insecure"];
            let live = Live::spawn(&mut sandbox.command(words));
            live.wait_for("are free");
            live.signal(signal);
            let ended = live.finish().exited(code);
            assert_eq!(ended.error(), format!("{said}\n"));
            assert_eq!(sandbox.tree(), before);
        }
    }
}

#[test]
fn a_signal_during_the_proof_takes_back_what_was_written() {
    for sandbox in [Sandbox::new(), Sandbox::with_another()] {
        let before = sandbox.tree();
        let certificate = Certificate::self_signed(sandbox.material.path(), "EXCH1");
        // The probe is answered, the proof is not.
        let target = tls_target_for(1, &certificate).to_string();
        let words = ["add", "exch1", &here(free_port()), &target, "--pin", &certificate.pin(), "--outbound", "manual"];
        let live = Live::spawn(&mut sandbox.command(words));
        live.wait_for("served only for the proof");
        assert!(sandbox.settings("exch1").exists(), "nothing was written before the proof");
        live.signal(Signal::SIGTERM);
        assert_eq!(live.finish().exited(143).error(), "terminated\n");
        assert_eq!(sandbox.tree(), before);
    }
}

#[test]
fn target_that_demands_a_client_certificate_is_reached_with_pem_or_pfx_of_its_own_copy() {
    let (sandbox, certificate, _) = legacy();
    let (folder, authority) = (sandbox.material.path(), Authority::new(sandbox.material.path()));
    let own = Leaf { name: "bridge", ..Leaf::default() }.issue(folder, Some(&authority));
    let demands = ["-Verify", "2", "-verify_return_error", "-CAfile", authority.0.cert.to_str().unwrap()];
    let target = SServer::start(&certificate, &[&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], &demands[..]].concat());
    let pfx = folder.join("bridge.pfx");
    let mut export = Command::new("openssl");
    export.args(["pkcs12", "-export", "-passout", "pass:Geheim 1", "-in"]).arg(&own.cert);
    run_to_end(export.arg("-inkey").arg(&own.key).arg("-out").arg(&pfx)).succeeded();
    let password = sandbox.put("password", "Geheim 1\n").display().to_string();
    let (cert, key, pfx) = (own.cert.display().to_string(), own.key.display().to_string(), pfx.display().to_string());
    for (name, flags) in [
        ("pem", ["--auth-cert", &cert, "--auth-key", &key]),
        ("pfx", ["--auth-pfx", &pfx, "--auth-pfx-password-file", &password]),
    ] {
        let port = here(free_port());
        let words = ["add", name, &port, &target.address(), "--pin", &certificate.pin()];
        sandbox.run(words.into_iter().chain(flags)).succeeded().says("proved: TLS 1.3 in, TLS 1.0 out");
        let copy = sandbox.var().join("credential").join(name);
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(copy.join("key.pem")).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o640);
        assert!(sandbox.text(name).contains(&format!("auth_cert = \"{}\"", copy.join("cert.pem").display())));
        let before = sandbox.tree();
        sandbox.run(["set", name, "auth_cert=", "auth_key="]).succeeded();
        sandbox.run(["set", name, &format!("auth_cert={cert}"), &format!("auth_key={key}")]).succeeded();
        sandbox.run(["run", "--check", name]).succeeded();
        assert_eq!(sandbox.tree().files().len(), before.files().len());
        sandbox.run(["remove", name]).succeeded();
        assert!(!copy.exists());
    }
}

#[test]
fn failed_add_leaves_no_copy_of_a_client_certificate() {
    let (sandbox, certificate, target) = legacy();
    let own = Certificate::self_signed(sandbox.material.path(), "bridge");
    let other = Leaf { name: "other", bits: 1024, ..Leaf::default() }.issue(sandbox.material.path(), None);
    let before = sandbox.tree();
    let port = here(free_port());
    let words = |key: &str| {
        let words =
            ["add", "exch1", &port, &target.address(), "--auth-cert", own.cert.to_str().unwrap(), "--auth-key", key];
        words.map(str::to_owned)
    };
    let refused = sandbox.run(words(other.key.to_str().unwrap())).exited(1);
    assert!(refused.error().starts_with("auth_cert: ") && refused.error().contains("its key is not the one in"));
    assert_eq!(sandbox.tree(), before);
    // The target's certificate is not trusted, and nobody is there to be asked.
    sandbox.run(words(own.key.to_str().unwrap())).exited(5);
    assert_eq!(sandbox.tree(), before);
    let _ = certificate;
}
