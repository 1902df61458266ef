//! The admin's cipher list.

use crate::config::values::BadValue;

/// Cipher words that no forwarder may use, whatever else its list says.
const NEVER: &[&str] =
    &["NULL", "ENULL", "ANULL", "EXP", "EXPORT", "ADH", "AECDH", "SSLV2", "ALL", "COMPLEMENTOFALL", "MD2", "LOW"];

/// Takes a list of OpenSSL cipher names; no strength rules, no never-acceptable suites.
///
/// Whether OpenSSL knows the names is seen when the forwarder's context is built, at start.
pub(super) fn cipher_list(text: &str) -> Result<String, BadValue> {
    let text = text.trim();
    if text.split([':', ',', ' ']).all(str::is_empty) {
        return Err(BadValue("names no cipher; leave the key out for the default".into()));
    }
    for word in text.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        if word.starts_with('@') {
            return Err(BadValue(format!("'{word}': the security level is set by ewsbridge; name ciphers only")));
        }
        let removes = word.starts_with(['!', '-']);
        let upper = word.trim_start_matches(['+', '!', '-']).to_ascii_uppercase();
        let parts: Vec<&str> = upper.split(['+', '-']).collect();
        let is_single_des = parts.contains(&"DES") && !parts.contains(&"CBC3");
        if !removes && (is_single_des || parts.iter().any(|part| NEVER.contains(part))) {
            return Err(BadValue(format!(
                "'{word}' is never used: no encryption, no authentication or export strength"
            )));
        }
        if !word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+!".contains(&byte)) {
            return Err(BadValue(format!("'{}' is not a cipher name", word.escape_default())));
        }
    }
    Ok(text.to_owned())
}

/// The words of a cipher list that ask for a broken cipher: by its own name, or by that of its kind.
///
/// A word that means many ciphers never means a broken one.
pub fn weak_ciphers(list: &str) -> Vec<&str> {
    let is_weak = |word: &&str| {
        let upper = word.to_ascii_uppercase();
        !word.starts_with(['!', '-']) && ["RC4", "3DES", "DES-CBC3"].iter().any(|weak| upper.contains(weak))
    };
    list.split([':', ',', ' ']).filter(is_weak).collect()
}
