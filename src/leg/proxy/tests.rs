//! Headers that are read back as written, and those that are refused.

use super::*;

fn ends(source: &str, destination: &str) -> Option<Ends> {
    Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

/// A header of version 2 with this command, family and what follows.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, block].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0x01, 0xbb];

#[test]
fn what_is_written_is_read_back_however_it_is_cut() {
    let cases = [ends("192.0.2.1:12345", "198.51.100.2:443"), ends("[2001:db8::1]:1", "[2001:db8::2]:65535"), None];
    for ends in cases {
        for header in [text(ends), binary(ends)] {
            let longer = [&header[..], b"\x16\x03\x01 the ClientHello"].concat();
            assert_eq!(parse(&longer), Ok(Some(Header { ends, length: header.len() })), "{header:?}");
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), Ok(None), "{cut} of {header:?}");
            }
        }
    }
    assert_eq!(text(cases[0]), b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n");
    assert_eq!(binary(cases[0]), v2(0x21, 0x11, &V4));
}

#[test]
fn two_families_meet_in_the_wider_one() {
    let mixed = ends("192.0.2.1:1", "[2001:db8::2]:2");
    assert_eq!(text(mixed), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
    for header in [text(mixed), binary(mixed)] {
        assert_eq!(parse(&header).unwrap().unwrap().ends, mixed, "an IPv4 client is one again");
    }
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_the_ipv4_address() {
    let header = parse(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6402 12345 443\r\n").unwrap().unwrap();
    assert_eq!(header.ends, ends("192.0.2.1:12345", "198.51.100.2:443"));
    assert_eq!(text(header.ends), b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n");
}

#[test]
fn a_sender_that_names_nobody_is_taken_for_itself() {
    let texts: [&[u8]; 3] =
        [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ff:ff \xff\xfe 1 2\r\n", b"PROXY UNKNOWN TCP4 192.0.2.1\r\n"];
    let unix = [0; 216];
    let binaries =
        [v2(0x20, 0x11, &V4), v2(0x20, 0xff, b"junk"), v2(0x21, 0, &V4), v2(0x21, 0x12, &V4), v2(0x21, 0x31, &unix)];
    for header in texts.iter().map(|text| text.to_vec()).chain(binaries) {
        assert_eq!(parse(&header), Ok(Some(Header { ends: None, length: header.len() })), "{header:?}");
    }
}

#[test]
fn hostile_text_is_refused() {
    let texts = [
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 2001:db8::2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 \u{661} 2\r\n",
    ];
    for text in texts {
        assert_eq!(parse(text.as_bytes()), Err(Malformed::Text), "{text:?}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(TEXT_MOST - 16));
    assert!(parse(long.as_bytes()).is_ok_and(|header| header.is_some()), "{} bytes", long.len());
    assert_eq!(parse(&long.as_bytes()[..106]), Ok(None));
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(TEXT_MOST - 15));
    assert_eq!(parse(longer.as_bytes()), Err(Malformed::Endless));
}

#[test]
fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
    for other in
        [&b"\x16"[..], b"G", b"PROXY\r", b"PROXY\tTCP4", b"PRI * HTTP/2.0", b"\r\n\r\n\0\r\nQUIT\r", b"\0", b"\n"]
    {
        assert_eq!(parse(other), Err(Malformed::Missing), "{other:?}");
        assert!(!begins(other));
    }
}

#[test]
fn hostile_binary_is_refused() {
    let kinds = [(0x11, 0x11), (0x31, 0x11), (0x22, 0x11), (0x2f, 0x11), (0x21, 0x41), (0x21, 0x13), (0x01, 0)];
    for (command, family) in kinds {
        // Before its length is there.
        let header = v2(command, family, &V4);
        assert_eq!(parse(&header[..14]), Err(Malformed::Kind(command, family)), "{command:x} {family:x}");
    }
    for (family, needs) in [(0x11, 12), (0x21, 36)] {
        for length in 0..needs {
            assert_eq!(parse(&v2(0x21, family, &vec![1; length])), Err(Malformed::Short), "{family:x} {length}");
        }
    }
    let fields: [&[u8]; 5] = [&[4], &[4, 0], &[4, 0, 1], &[4, 0xff, 0xff, 0], &[4, 0, 0, 3, 0, 3, 1, 2, 3]];
    for field in fields {
        assert_eq!(parse(&v2(0x21, 0x11, &[&V4, field].concat())), Err(Malformed::Short), "{field:?}");
    }
    // Its length alone decides, before any of it is kept.
    let most = v2(0x20, 0, &vec![0; MOST - HEAD]);
    assert_eq!(parse(&most), Ok(Some(Header { ends: None, length: MOST })));
    assert_eq!(parse(&v2(0x20, 0, &vec![0; MOST - HEAD + 1])[..HEAD]), Err(Malformed::Long));
    assert_eq!(parse(&v2(0x21, 0x11, &[0xff; 65_535])[..HEAD]), Err(Malformed::Long));
}

#[test]
fn a_checksum_that_is_there_must_be_right() {
    assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283, "the check value of CRC-32C");
    let around: [&[u8]; 2] = [&[4, 0, 3, 1, 2, 3], &[1, 0, 2, b'h', b'2']];
    let with = |sum: u32| {
        let field = [&[CRC32C, 0, 4][..], &sum.to_be_bytes()].concat();
        v2(0x21, 0x11, &[&V4, around[0], &field, around[1]].concat())
    };
    let right = crc32c(with(0).iter());
    let header = parse(&with(right)).unwrap().unwrap();
    assert_eq!(header.ends, ends("192.0.2.1:12345", "198.51.100.2:443"));
    let mut changed = with(right);
    changed[HEAD] ^= 1;
    assert_eq!((parse(&changed), parse(&with(right ^ 1))), (Err(Malformed::Checksum), Err(Malformed::Checksum)));
}
