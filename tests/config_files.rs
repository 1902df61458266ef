//! Settings by example: each file under `tests/config/valid` loads, each under `tests/config/invalid`
//! is refused with the message in its first line.

mod cli_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cli_support::{Sandbox, free_port};

fn examples(folder: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(folder);
    let entries = fs::read_dir(&folder).expect("the folder of examples");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    paths.map(|path| (name(&path), fs::read_to_string(&path).expect("an example"))).collect()
}

/// A sandbox with the forwarder `x`, whose file is about to be replaced.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.run(["add", "x", &format!("127.0.0.1:{}", free_port()), "192.0.2.1:443", "--offline"]).succeeded();
    sandbox
}

#[test]
fn every_valid_file_loads_and_is_shown() {
    let sandbox = sandbox();
    let examples = examples("valid");
    assert!(examples.len() >= 5, "{examples:?}");
    for (name, text) in examples {
        fs::write(sandbox.settings("x"), &text).expect("written");
        let checked = sandbox.run(["run", "--check", "x"]);
        assert_eq!((checked.code, checked.stderr.as_str()), (0, ""), "{name}");
        assert_eq!(checked.stdout, "x: the settings are in order\n", "{name}");
        let shown = sandbox.run(["show", "x"]).succeeded().stdout;
        assert!(shown.contains("\ntarget              = "), "{name}: {shown}");
    }
}

#[test]
fn every_invalid_file_is_refused_with_the_message_it_names() {
    let sandbox = sandbox();
    for (name, text) in examples("invalid") {
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# expect: "));
        let expected = expected.unwrap_or_else(|| panic!("{name}: does not begin with '# expect: '"));
        fs::write(sandbox.settings("x"), &text).expect("written");
        let before = sandbox.tree();
        let refused = sandbox.run(["run", "--check", "x"]);
        assert!(refused.stderr.contains(expected), "{name}: '{expected}' is missing in\n{}", refused.stderr);
        // A file that the settings name is another file's trouble.
        let code = if text.contains("ca = \"/nonexistent") { 1 } else { 78 };
        assert_eq!(refused.code, code, "{name}: {}", refused.stderr);
        assert_eq!(refused.stdout, "", "{name}");
        // What a check refuses, a start refuses in the same words.
        let started = sandbox.run(["run", "x"]);
        assert_eq!((started.code, &started.stderr), (refused.code, &refused.stderr), "{name}");
        assert_eq!(sandbox.tree(), before, "{name}");
    }
}

#[test]
fn what_add_writes_is_valid_and_so_is_each_of_its_commented_keys() {
    let sandbox = sandbox();
    let text = sandbox.text("x");
    // The keys without a default that contradict each other, or need files, stay out.
    let special = ["server_name", "ciphers", "ca", "client_ca", "pin", "cert", "key", "auth_cert", "auth_key"];
    let uncommented: Vec<String> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !special.iter().any(|key| rest.starts_with(&format!("{key} "))) => {
                rest.to_owned()
            }
            _ => line.to_owned(),
        })
        .collect();
    assert!(uncommented.iter().filter(|line| !line.starts_with('#')).count() > 15, "{text}");
    fs::write(sandbox.settings("x"), uncommented.join("\n")).expect("written");
    sandbox.run(["run", "--check", "x"]).succeeded();
}
