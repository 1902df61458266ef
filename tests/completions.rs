//! Completions in real shells: commands, flags, and the names of the forwarders that exist.

mod cli_support;

use std::path::Path;
use std::process::Command;

use cli_support::{Sandbox, run_to_end};

/// The completions of a shell, as a file, and a sandbox with the forwarder `old`.
fn world(shell: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::with_another();
    let text = sandbox.run(["completions", shell]).succeeded().stdout;
    let file = sandbox.put("completions", text);
    (sandbox, file.to_str().unwrap().to_owned())
}

/// What a shell says to a script.
#[track_caller]
fn says(sandbox: &Sandbox, shell: &str, arguments: &[&str]) -> String {
    let path = format!("/usr/bin/{shell}");
    assert!(Path::new(&path).exists(), "{path} is missing: deploy/setup tests");
    let mut command = Command::new(path);
    command.args(arguments);
    sandbox.surround(&mut command);
    run_to_end(&mut command).succeeded().stdout
}

#[test]
fn bash_completes_commands_flags_and_names() {
    let (sandbox, file) = world("bash");
    let complete = |words: &str| {
        let script = format!(
            "source {file}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE='{words}'; \
             $(complete -p ewsbridge | sed 's/.*-F \\([^ ]*\\).*/\\1/') ewsbridge \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        says(&sandbox, "bash", &["--norc", "-c", &script])
    };
    assert_eq!(complete("ewsbridge stat"), "status\n");
    assert_eq!(complete("ewsbridge status ''"), "old\n");
    assert_eq!(complete("ewsbridge set o"), "old\n");
    assert_eq!(complete("ewsbridge cert renew o"), "old\n");
    assert!(complete("ewsbridge status --").contains("--watch\n"));
    assert_eq!(complete("ewsbridge remove x").trim(), "");
}

#[test]
fn fish_completes_commands_flags_and_names() {
    let (sandbox, file) = world("fish");
    let complete =
        |words: &str| says(&sandbox, "fish", &["--no-config", "-c", &format!("source {file}; complete -C'{words}'")]);
    assert!(complete("ewsbridge stat").starts_with("status\t"));
    assert_eq!(complete("ewsbridge status o").trim(), "old");
    assert_eq!(complete("ewsbridge cert show o").trim(), "old");
    assert!(complete("ewsbridge status --").contains("--watch"));
}

#[test]
fn zsh_completes_names_where_a_forwarder_is_meant() {
    let (sandbox, file) = world("zsh");
    let script = format!("compdef() {{ }}; _describe() {{ print -l ${{(P)4}} }}; source {file}; _ewsbridge_forwarders");
    assert_eq!(says(&sandbox, "zsh", &["-f", "-c", &script]), "old\n");
    let text = sandbox.run(["completions", "zsh"]).succeeded().stdout;
    assert_eq!(text.matches(":_ewsbridge_forwarders'").count(), 11, "all but the new name of add");
    assert!(says(&sandbox, "zsh", &["-f", "-n", &file]).is_empty(), "it is no zsh");
}
