//! Changes to inputs: of any bytes, of TLS records, of DER, of scripts. The last three keep lengths
//! right around what they change, or the parsers would see nothing but wrong lengths.

use super::chance::Chance;
use crate::foe::{Script, Step};

/// No input grows beyond this.
const LONGEST: usize = 40_000;

/// What an input is made of, beside bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Bytes,
    /// TLS records, after one byte that chooses the settings.
    Records,
    /// One element of DER.
    Der,
    /// A [`Script`].
    Script,
}

/// Another input from these.
pub fn mutate(chance: &mut Chance, shape: Shape, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut output = input.to_vec();
    for _ in 0..=chance.below(4) {
        output = match shape {
            _ if chance.once_in(6) => bytes(chance, &output, other),
            Shape::Bytes => bytes(chance, &output, other),
            Shape::Records => records(chance, &output, other),
            Shape::Der => der(chance, &output, other),
            Shape::Script => script(chance, &output, other),
        };
    }
    output.truncate(LONGEST);
    output
}

fn bytes(chance: &mut Chance, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut output = input.to_vec();
    let place = chance.below(output.len());
    match chance.below(11) {
        0 | 1 if !output.is_empty() => output[place] ^= 1 << chance.below(8),
        2 if !output.is_empty() => output[place] = *chance.of(&[0, 1, 0x7f, 0x80, 0xff, 0x20, b'0', b'\n']),
        3 if !output.is_empty() => {
            output[place] = output[place].wrapping_add(*chance.of(&[1, 2, 0xff, 0xfe, 16, 0xf0]))
        }
        4 if output.len() > 2 => {
            let at = chance.below(output.len() - 1);
            let value =
                *chance.of(&[0_u16, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x3fff, 0x4000, 0x4001, 0x7fff, 0x8000, 0xffff]);
            output[at..at + 2].copy_from_slice(&value.to_be_bytes());
        }
        5 => drop(output.drain(chance.range(input.len()))),
        6 => {
            let copy = input[chance.range(input.len())].to_vec();
            output.splice(place..place, copy);
        }
        7 => {
            let piece = other[chance.range(other.len())].to_vec();
            output.splice(place..place, piece);
        }
        8 => {
            let piece = other[chance.range(other.len())].to_vec();
            let end = (place + piece.len()).min(output.len());
            output.splice(place..end, piece);
        }
        9 => output.truncate(place),
        _ => {
            let fresh: Vec<u8> = (0..=chance.below(8)).map(|_| chance.byte()).collect();
            output.splice(place..place, fresh);
        }
    }
    output
}

/// The records of a flight; what is left at its end is the last one.
fn split(mut flight: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let [_, _, _, high, low, ..] = flight {
        let length = (5 + usize::from(u16::from_be_bytes([*high, *low]))).min(flight.len());
        let (record, rest) = flight.split_at(length);
        all.push(record.to_vec());
        flight = rest;
    }
    if !flight.is_empty() {
        all.push(flight.to_vec());
    }
    all
}

fn records(chance: &mut Chance, input: &[u8], other: &[u8]) -> Vec<u8> {
    let (settings, flight) = input.split_at(input.len().min(1));
    let mut all = split(flight);
    if all.is_empty() {
        return bytes(chance, input, other);
    }
    let at = chance.below(all.len());
    match chance.below(9) {
        0 => drop(all.remove(at)),
        1 => all.insert(at, all[chance.below(all.len())].clone()),
        2 => {
            let with = chance.below(all.len());
            all.swap(at, with);
        }
        3 => all.extend(split(other.get(1..).unwrap_or_default())),
        4 if all[at].len() > 6 => {
            // One record becomes two.
            let body = all[at].split_off(5);
            let (one, two) = body.split_at(chance.below(body.len()));
            let head = all[at][..3].to_vec();
            all[at] = framed(&head, one);
            all.insert(at + 1, framed(&head, two));
        }
        5 => all.insert(at, framed(&[*chance.of(&[20, 21, 22, 23, 24]), 3, 1], &[chance.byte(), chance.byte()])),
        _ if all[at].len() > 5 => all[at] = message(chance, &all[at], other),
        _ => {}
    }
    [settings, &all.concat()].concat()
}

fn framed(head: &[u8], body: &[u8]) -> Vec<u8> {
    [&head[..3], &u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes(), body].concat()
}

/// A record with a change inside, its lengths still right: the record's, and mostly the message's.
fn message(chance: &mut Chance, record: &[u8], other: &[u8]) -> Vec<u8> {
    let (head, body) = record.split_at(5);
    let body = match body {
        [kind, _, _, _, rest @ ..] if head[0] == 22 && !chance.once_in(4) => {
            let changed = if chance.once_in(2) && rest.len() > 8 {
                // A certificate message: the DER in it, behind two lengths of its own.
                let der = der(chance, &rest[6..], other);
                let sized =
                    |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes()[1..], bytes].concat();
                sized(&sized(&der))
            } else {
                bytes(chance, rest, other)
            };
            crate::foe::handshake(*kind, &changed)
        }
        _ => bytes(chance, body, other),
    };
    framed(head, &body)
}

fn script(chance: &mut Chance, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut script = Script::from_bytes(input);
    let other = Script::from_bytes(other);
    let at = chance.below(script.steps.len());
    match chance.below(10) {
        _ if script.steps.is_empty() => script.steps.clone_from(&other.steps),
        0 => drop(script.steps.remove(at)),
        1 => script.steps.insert(at, script.steps[chance.below(script.steps.len())].clone()),
        2 => {
            let with = chance.below(script.steps.len());
            script.steps.swap(at, with);
        }
        3 if !other.steps.is_empty() => script.steps.insert(at, chance.of(&other.steps).clone()),
        4 => {
            let kind = *chance.of(&[0, 2, 4, 11, 12, 13, 14, 20, 22]);
            script.steps.insert(at, Step::Message(kind, (0..chance.below(9)).map(|_| chance.byte()).collect()));
        }
        5 => {
            let kind = *chance.of(&[20, 21, 22, 23, 24]);
            script.steps.insert(at, Step::Record(kind, (0..chance.below(5)).map(|_| chance.byte()).collect()));
        }
        6 => script.minor = *chance.of(&[1, 2, 3]),
        _ => inside(chance, &mut script.steps[at], &other.to_bytes()),
    }
    let first = input.first().copied().unwrap_or(0) & 0xf0;
    let mut output = script.to_bytes();
    output[0] |= first;
    output
}

/// A change of what belongs to a step.
fn inside(chance: &mut Chance, step: &mut Step, other: &[u8]) {
    match step {
        Step::ServerHello(suite) => {
            *suite = *chance.of(&[0x2f, 0x35, 0x33, 0x39, 0xc013, 0xc02f, 0x9c, 0x3c, 0, 0x1301, 0x5600])
        }
        Step::Certificate(der_bytes) => *der_bytes = der(chance, der_bytes, other),
        Step::Exchange(payload) | Step::Message(_, payload) | Step::Record(_, payload) | Step::Wire(payload) => {
            *payload = bytes(chance, payload, other);
        }
        _ => {}
    }
}

/// Where an element of DER begins, where its content does, and where it ends.
struct Element {
    start: usize,
    content: usize,
    end: usize,
}

/// Every element, each after those that it lies in; a string of octets may hold more of them.
fn elements(bytes: &[u8], from: usize, to: usize, found: &mut Vec<Element>) {
    let mut at = from;
    while at + 2 <= to && found.len() < 2000 {
        let (tag, first) = (bytes[at], bytes[at + 1]);
        let count = if first < 0x80 { 0 } else { usize::from(first & 0x7f) };
        if count > 3 || at + 2 + count > to {
            return;
        }
        let length = match count {
            0 => usize::from(first),
            _ => bytes[at + 2..at + 2 + count].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        let content = at + 2 + count;
        let Some(end) = content.checked_add(length).filter(|end| *end <= to) else { return };
        found.push(Element { start: at, content, end });
        if tag & 0x20 != 0 || tag == 4 {
            elements(bytes, content, end, found);
        } else if tag == 3 && length > 1 {
            elements(bytes, content + 1, end, found);
        }
        at = end;
    }
}

fn der(chance: &mut Chance, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    elements(input, 0, input.len(), &mut found);
    if found.is_empty() {
        return bytes(chance, input, other);
    }
    let chosen = chance.below(found.len());
    let Element { start, content, end } = found[chosen];
    let element = &input[start..end];
    let new = match chance.below(8) {
        0 => Vec::new(),
        1 => [element, element].concat(),
        2 => element.repeat(1 + chance.below(200)),
        3 => {
            // Deeper and deeper.
            (0..chance.below(40)).fold(element.to_vec(), |inner, _| tlv(input[start], &inner))
        }
        4 => tlv(chance.byte(), &input[content..end]),
        5 => {
            let with = &found[chance.below(found.len())];
            input[with.start..with.end].to_vec()
        }
        _ => tlv(input[start], &bytes(chance, &input[content..end], other)),
    };
    replaced(input, &found, chosen, new)
}

/// The whole with another element in the place of one, and right lengths around it.
fn replaced(input: &[u8], found: &[Element], chosen: usize, mut new: Vec<u8>) -> Vec<u8> {
    let (mut start, mut end) = (found[chosen].start, found[chosen].end);
    for around in
        found[..chosen].iter().rev().filter(|one| one.content <= found[chosen].start && found[chosen].end <= one.end)
    {
        let inner = [&input[around.content..start], &new, &input[end..around.end]].concat();
        new = tlv(input[around.start], &inner);
        (start, end) = (around.start, around.end);
    }
    [&input[..start], &new, &input[end..]].concat()
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let bytes = u32::try_from(content.len()).unwrap_or(0).to_be_bytes();
    let head: &[u8] = match content.len() {
        0..=0x7f => &bytes[3..],
        0x80..=0xff => &[0x81, bytes[3]],
        0x100..=0xffff => &[0x82, bytes[2], bytes[3]],
        _ => &[0x83, bytes[1], bytes[2], bytes[3]],
    };
    [&[tag], head, content].concat()
}
