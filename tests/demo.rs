//! `demo`: the whole bridge on one machine, without any Exchange.

mod cli_support;

use std::process::Command;

use nix::sys::signal::Signal;

use cli_support::{Live, Sandbox, run_to_end};

#[test]
fn the_demo_shows_both_legs_and_ends() {
    let sandbox = Sandbox::new();
    let shown = sandbox.run(["demo", "0", "--once"]).succeeded();
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert!(lines[0].starts_with("client -> bridge   TLS 1.3 TLS_"), "{lines:?}");
    assert!(lines[1].starts_with("bridge -> server   TLS 1.1 ECDHE-RSA-AES256-SHA"), "{lines:?}");
    assert_eq!(lines[2..], ["one request went through both and was answered 200"]);
    assert!(sandbox.tree().files().is_empty(), "the demo left something");
}

#[test]
fn the_demo_stays_up_for_openssl_and_ends_on_sigterm() {
    let sandbox = Sandbox::new();
    let demo = Live::spawn(&mut sandbox.command(["demo", "0"]));
    // The line is meant to be pasted, so it is.
    let line = demo.wait_for("  openssl s_client -connect 127.0.0.1:");
    demo.wait_for("For a real server: ewsbridge add exch1 9443 ews.corp:443");
    let mut pasted = Command::new("sh");
    pasted.arg("-c").arg(format!("{line} -verify_return_error -verify_ip 127.0.0.1")).env_remove("OPENSSL_CONF");
    run_to_end(&mut pasted).succeeded().says("Verification: OK").says("New, TLSv1.3, ");

    let line = demo.wait_for("  curl --cacert ");
    let mut pasted = Command::new("sh");
    let answer = run_to_end(pasted.arg("-c").arg(format!("{line} --silent"))).succeeded();
    assert_eq!(answer.stdout, "hello over TLSv1.1 ECDHE-RSA-AES256-SHA\n");

    let ca = line.split_whitespace().nth(2).expect("a file").to_owned();
    demo.signal(Signal::SIGTERM);
    demo.finish().exited(143);
    assert!(!std::path::Path::new(&ca).exists(), "the demo left {ca}");
}

#[test]
fn a_port_in_use_ends_the_demo_with_its_holder() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let refused = Sandbox::new().run(["demo", &port.to_string(), "--once"]).exited(1);
    assert!(refused.error().starts_with(&format!("demo: listen on 127.0.0.1:{port}: address already in use\nhint: ")));
}
