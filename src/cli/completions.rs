//! `completions`: what a shell needs to complete commands, flags, values and the names of forwarders.
//!
//! `clap_complete` knows commands and flags; where it would offer files for a forwarder's name, the names of
//! the files under `/etc/ewsbridge/forwarders` take their place, which the shell looks up by itself: its
//! own engine for that is unstable still.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::failed::{Failed, code};
use super::talk::say;
use super::{Arguments, Done};

/// Print completions for a shell.
#[derive(Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints them.
    pub(super) fn run(self) -> Done {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "ewsbridge", &mut text);
        let text = String::from_utf8(text).map_err(|error| Failed::with(code::FAILED, error))?;
        let text = match self.shell {
            Shell::Bash => text + BASH,
            Shell::Fish => text + FISH,
            Shell::Zsh => zsh(&text),
            _ => text,
        };
        say!("{}", text.trim_end());
        Ok(0)
    }
}

/// Commands whose argument is the name of a forwarder that exists; `cert` has commands of its own.
#[cfg(test)]
const NAMED: [&str; 9] = ["check", "drain", "reload", "remove", "run", "set", "show", "status", "trust"];

/// Behind what `clap_complete` wrote for bash: where the word before is one of the commands, or the second of
/// `cert`, names come besides.
const BASH: &str = r#"
_ewsbridge_forwarders() {
    local file folder=${EWSBRIDGE_CONFIG_DIR:-/etc/ewsbridge}/forwarders
    for file in "$folder"/*.toml; do
        [[ -e $file ]] && file=${file##*/} && printf '%s\n' "${file%.toml}"
    done
}

_ewsbridge_and_names() {
    _ewsbridge "$@"
    local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    [[ $cur == -* ]] && return
    case $before in
    check|drain|reload|remove|run|set|show|status|trust|renew)
        # None of those takes a file there.
        COMPREPLY=($(compgen -W "$(_ewsbridge_forwarders)" -- "$cur")) ;;
    esac
}

complete -F _ewsbridge_and_names -o nosort -o bashdefault -o default ewsbridge 2>/dev/null ||
    complete -F _ewsbridge_and_names -o bashdefault -o default ewsbridge
"#;

/// The same for fish.
const FISH: &str = r#"
function __ewsbridge_forwarders
    set -l folder /etc/ewsbridge
    set -q EWSBRIDGE_CONFIG_DIR; and set folder $EWSBRIDGE_CONFIG_DIR
    for file in $folder/forwarders/*.toml
        basename $file .toml
    end
end
complete -c ewsbridge -n "__fish_seen_subcommand_from check drain reload remove run set show status trust renew" -f -a "(__ewsbridge_forwarders)"
complete -c ewsbridge -n "__fish_seen_subcommand_from cert; and __fish_seen_subcommand_from show renew" -f -a "(__ewsbridge_forwarders)"
"#;

/// zsh names what is to be completed; a forwarder's name is completed as one.
fn zsh(text: &str) -> String {
    let is_name = |line: &str| {
        let argument = line.trim_start().trim_start_matches(['\'', '"', '*']).trim_start_matches([':']);
        ["name -- ", "names -- ", "name: ", "names: "].iter().any(|name| argument.starts_with(name))
    };
    let mut out = String::new();
    for line in text.lines() {
        if is_name(line) && !line.contains("also its file") {
            out += &line.replace(":_default'", ":_ewsbridge_forwarders'");
        } else {
            out += line;
        }
        out.push('\n');
        if line == "autoload -U is-at-least" {
            out += ZSH;
        }
    }
    out
}

const ZSH: &str = r#"
_ewsbridge_forwarders() {
    local -a names
    names=(${EWSBRIDGE_CONFIG_DIR:-/etc/ewsbridge}/forwarders/*.toml(N:t:r))
    _describe -t forwarders forwarder names
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_with_a_forwarders_name_completes_names() {
        for command in NAMED {
            assert!(Arguments::command().find_subcommand(command).is_some(), "{command}");
            assert!(BASH.contains(command) && FISH.contains(command), "{command}");
        }
    }
}
