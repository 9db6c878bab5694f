//! Hostile Rust sources, generated: what no parser should be fed and every service is.
//! Invariant: the same arguments give the same sources. None of them needs to be valid Rust.

use std::fmt::Write;

/// A hostile source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What is hostile about it.
    pub name: String,
    /// The source; not always UTF-8.
    pub source: Vec<u8>,
}

impl Sample {
    fn new(name: impl Into<String>, source: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), source: source.into() }
    }
}

/// Every kind of hostile source, `depth` deep or long: 5 000 is a small file that kills an unguarded process.
///
/// Made one at a time; the largest takes about 30 bytes per unit of depth, and never less than 5 MB.
pub fn corpus(depth: usize) -> impl Iterator<Item = Sample> {
    nested(depth).chain(chained(depth)).chain(huge(depth)).chain(broken()).chain(encoded())
}

/// Around an expression, a type or a pattern: before, repeated opening, innermost, repeated closing, after.
const NESTED: &[(&str, [&str; 5])] = &[
    ("parentheses", ["fn f() { let x = ", "(", "1", ")", "; }"]),
    ("arrays", ["fn f() { let x = ", "[", "1", "]", "; }"]),
    ("blocks", ["fn f() ", "{", "", "}", ""]),
    ("block expressions", ["fn f() { let x = ", "{ 1 + ", "1", "}", "; }"]),
    ("unsafe blocks", ["fn f() { ", "unsafe {", "", "}", " }"]),
    ("async blocks", ["fn f() { ", "async move {", "", "}", " }"]),
    ("tuples", ["fn f() { let x = ", "(1, ", "1", ")", "; }"]),
    ("calls", ["fn f() { ", "g(", "1", ")", " }"]),
    ("index expressions", ["fn f() { ", "a[", "1", "]", " }"]),
    ("struct literals", ["fn f() { let x = ", "S { f: ", "1", "}", "; }"]),
    ("if in if", ["fn f() { ", "if a {", "", "}", " }"]),
    ("if conditions", ["fn f() { ", "if {", "true", "} {}", " }"]),
    ("matches", ["fn f() { ", "match x { _ => ", "1", "}", " }"]),
    ("match scrutinees", ["fn f() { ", "match (", "1", ") {}", " }"]),
    ("loops", ["fn f() { ", "loop {", "", "}", " }"]),
    ("while conditions", ["fn f() { ", "while {", "a", "} {}", " }"]),
    ("for loops", ["fn f() { ", "for x in {", "a", "} {}", " }"]),
    ("closures in parentheses", ["fn f() { ", "(|| ", "1", ")", " }"]),
    ("closures with blocks", ["fn f() { ", "|| -> T {", "1", "}", " }"]),
    ("macro trees", ["m! { ", "(", "", ")", " }"]),
    ("macros in macros", ["fn f() { ", "m!(", "1", ")", " }"]),
    ("functions in functions", ["", "fn f() {", "", "}", ""]),
    ("modules", ["", "mod m {", "", "}", ""]),
    ("impls in functions", ["", "impl A { fn f() {", "", "} }", ""]),
    ("traits in functions", ["", "trait A { fn f() {", "", "} }", ""]),
    ("use trees", ["use ", "a::{", "b", "}", ";"]),
    ("attribute trees", ["#[a", "(", "", ")", "] fn f() {}"]),
    ("visibility", ["", "pub(in ", "a", ")", " fn f() {}"]),
    ("parenthesised types", ["type T = ", "(", "u8", ")", ";"]),
    ("array types", ["type T = ", "[", "u8", "; 1]", ";"]),
    ("slice types", ["type T = ", "[", "u8", "]", ";"]),
    ("tuple types", ["type T = ", "(u8, ", "u8", ")", ";"]),
    ("function types", ["type T = ", "fn(", "u8", ")", ";"]),
    ("array lengths", ["type T = ", "[u8; {", "1", "}]", ";"]),
    ("generics", ["type T = ", "A<", "u8", ">", ";"]),
    ("generics with commas", ["type T = ", "A<u8, ", "u8", ">", ";"]),
    ("const generics", ["type T = ", "A<{", "1", "}>", ";"]),
    ("associated types", ["type T = ", "A<B = ", "u8", ">", ";"]),
    ("qualified paths", ["type T = ", "<", "u8", " as A>::B", ";"]),
    ("turbofish", ["fn f() { ", "a::<", "u8", ">()", " }"]),
    ("trait objects", ["type T = ", "Box<dyn Fn(", "u8", ")>", ";"]),
    ("parenthesised bounds", ["type T = dyn ", "(", "A", ")", ";"]),
    ("parenthesised patterns", ["fn f() { let ", "(", "a", ")", " = 1; }"]),
    ("slice patterns", ["fn f() { let ", "[", "a", "]", " = 1; }"]),
    ("tuple patterns", ["fn f() { let ", "(a, ", "a", ")", " = 1; }"]),
    ("struct patterns", ["fn f() { let ", "S { f: ", "a", "}", " = 1; }"]),
    ("box patterns", ["fn f() { let ", "A(box ", "a", ")", " = 1; }"]),
    ("comments", ["", "/*", "", "*/", " fn f() {}"]),
    ("mixed brackets", ["m! { ", "([{", "", "}])", " }"]),
    ("mixed brackets and signs", ["fn f() { ", "-(!(&", "1", "))", " }"]),
];

/// Brackets of every kind, `depth` deep; and the same without their ends.
pub fn nested(depth: usize) -> impl Iterator<Item = Sample> {
    let whole = NESTED.iter().map(move |(name, [before, open, inner, close, after])| {
        Sample::new(
            format!("{depth} nested {name}"),
            [before, open.repeat(depth).as_str(), inner, close.repeat(depth).as_str(), after].concat(),
        )
    });
    let open = NESTED.iter().map(move |(name, [before, open, ..])| {
        Sample::new(format!("{depth} nested {name}, never closed"), [before, open.repeat(depth).as_str()].concat())
    });
    let closed = ["(", "[", "{", ")", "]", "}"]
        .map(|bracket| Sample::new(format!("{depth} of {bracket} alone"), bracket.repeat(depth)));
    whole.chain(open).chain(closed)
}

/// Before, repeated, after.
const CHAINED: &[(&str, [&str; 3])] = &[
    ("unary minus", ["fn f() { let x = ", "-", "1; }"]),
    ("not", ["fn f() { let x = ", "!", "a; }"]),
    ("dereferences", ["fn f() { let x = ", "*", "a; }"]),
    ("references", ["fn f() { let x = ", "& ", "a; }"]),
    ("double references", ["fn f() { let x = ", "&&", "a; }"]),
    ("mutable references", ["fn f() { let x = ", "&mut ", "a; }"]),
    ("raw references", ["fn f() { let x = ", "&raw const ", "a; }"]),
    ("returns", ["fn f() { ", "return ", "1; }"]),
    ("breaks", ["fn f() { loop { ", "break ", "1; } }"]),
    ("yields", ["fn f() { ", "yield ", "1; }"]),
    ("ranges", ["fn f() { let x = ", "..", "1; }"]),
    ("closures", ["fn f() { let x = ", "|| ", "1; }"]),
    ("closures with parameters", ["fn f() { let x = ", "|a, b| ", "1; }"]),
    ("closures and comparisons", ["fn f() { let x = ", "|a, b| 1 > ", "1; }"]),
    ("moving closures", ["fn f() { let x = ", "move |a: u8| ", "1; }"]),
    ("labels", ["fn f() { ", "'a: ", "loop {} }"]),
    ("assignments", ["fn f() { ", "a = ", "1; }"]),
    ("compound assignments", ["fn f() { ", "a += ", "1; }"]),
    ("sums", ["fn f() { let x = ", "1 + ", "1; }"]),
    ("powers of precedence", ["fn f() { let x = ", "a || b && c == d | e ^ f & g << h + i * ", "1; }"]),
    ("comparisons", ["fn f() { let x = ", "a < ", "1; }"]),
    ("comparisons of commas", ["fn f() { let x = (", "a < b, ", "1); }"]),
    ("lazy operators", ["fn f() { if ", "a && ", "b {} }"]),
    ("let chains", ["fn f() { if ", "let a = b && ", "c {} }"]),
    ("casts", ["fn f() { let x = 1", " as u8", "; }"]),
    ("casts to generics", ["fn f() { let x = 1", " as usize < b", "; }"]),
    ("method calls", ["fn f() { a", ".b()", "; }"]),
    ("fields", ["fn f() { a", ".b", "; }"]),
    ("tuple fields", ["fn f() { a", ".0", "; }"]),
    ("awaits", ["fn f() { a", ".await", "; }"]),
    ("question marks", ["fn f() { a", "?", "; }"]),
    ("calls of calls", ["fn f() { a", "()", "; }"]),
    ("indexes of indexes", ["fn f() { a", "[0]", "; }"]),
    ("macro calls of blocks", ["fn f() { ", "m!{} ", "}"]),
    ("blocks in a row", ["fn f() { ", "{} ", "}"]),
    ("else if", ["fn f() { ", "if a {} else ", "{} }"]),
    ("else if let", ["fn f() { ", "if let Some(a) = b { 1 } else ", "{ 2 } }"]),
    ("let else", ["fn f() { ", "let a = b else { return }; ", "}"]),
    ("match arms", ["fn f() { match a { ", "1 => {} ", "} }"]),
    ("or patterns", ["fn f() { match a { ", "1 | ", "2 => {} } }"]),
    ("bound patterns", ["fn f() { let ", "a @ ", "b = 1; }"]),
    ("reference patterns", ["fn f() { let ", "&", "b = 1; }"]),
    ("mutable reference patterns", ["fn f() { let ", "&mut ", "b = 1; }"]),
    ("pointer types", ["type T = ", "*const ", "u8;"]),
    ("reference types", ["type T = ", "&'a mut ", "u8;"]),
    ("double reference types", ["type T = ", "&&", "u8;"]),
    ("functions that return functions", ["type T = ", "fn() -> ", "u8;"]),
    ("functions of two that return functions", ["type T = ", "fn(a, b) -> ", "u8;"]),
    ("Fn bounds", ["type T = ", "impl Fn() -> ", "u8;"]),
    ("for lifetimes", ["type T = ", "for<'a> fn() -> ", "u8;"]),
    ("higher-ranked bounds", ["fn f() where ", "for<'a, 'b> ", "T: A {}"]),
    ("bounds", ["type T = dyn A", " + B", ";"]),
    ("never closed generics", ["type T = ", "A<", ""]),
    ("never closed qualified paths", ["type T = ", "<", ""]),
    ("path segments", ["use a", "::a", ";"]),
    ("attributes", ["", "#[a] ", "fn f() {}"]),
    ("inner attributes", ["", "#![a] ", "fn f() {}"]),
    ("parameters", ["fn f(", "a: u8, ", ") {}"]),
    ("enum variants", ["enum E { ", "A, ", "}"]),
    ("variants with values", ["enum E { ", "A = 1 + ", "1 }"]),
    ("where clauses", ["fn f() where ", "T: A, ", "{}"]),
    ("semicolons", ["fn f() { ", ";", "}"]),
    ("literals in a row", ["m! { ", "1 ", "}"]),
    ("quotes", ["", "\"", ""]),
    ("apostrophes", ["", "'", ""]),
    ("hashes", ["", "#", ""]),
    ("raw string hashes", ["fn f() { r", "#", "\"\"; }"]),
    ("backslashes in a string", ["const A: &str = \"", "\\\\", "\";"]),
    ("dollar signs", ["m! { ", "$", "}"]),
    ("colons", ["m! { ", ":", "}"]),
    ("keywords", ["", "unsafe const async extern ", "fn f() {}"]),
];

/// Recursion and length without brackets, `length` units of it.
pub fn chained(length: usize) -> impl Iterator<Item = Sample> {
    CHAINED.iter().map(move |(name, [before, unit, after])| {
        Sample::new(format!("{length} {name}"), [before, unit.repeat(length).as_str(), after].concat())
    })
}

type Make = fn(usize) -> String;

/// Tokens, lines and files that are long; at least a megabyte, `units` if that is more.
pub fn huge(units: usize) -> impl Iterator<Item = Sample> {
    let bytes = units.max(1 << 20);
    let make: [(&str, Make); 11] = [
        ("identifier", |bytes| format!("fn {}() {{}}", "x".repeat(bytes))),
        ("identifier of wide characters", |bytes| format!("fn {}() {{}}", "ñ".repeat(bytes))),
        ("integer", |bytes| format!("const A: u8 = {};", "9".repeat(bytes))),
        ("float", |bytes| format!("const A: f64 = 1.{}e{};", "0".repeat(bytes), "9".repeat(100))),
        ("string", |bytes| format!("const A: &str = \"{}\";", "x".repeat(bytes))),
        ("string of escapes", |bytes| format!("const A: &str = \"{}\";", "\\u{1F600}".repeat(bytes / 9))),
        ("line comment", |bytes| format!("// {}\nfn f() {{}}", "x".repeat(bytes))),
        ("documentation", |bytes| format!("{}fn f() {{}}", "/// a line of documentation\n".repeat(bytes / 28))),
        ("white space", |bytes| format!("fn f() {{{}}}", " ".repeat(bytes))),
        ("empty lines", |bytes| format!("fn f() {{{}}}", "\n".repeat(bytes))),
        ("constant table", |bytes| format!("const A: &[u8] = &[{}];", "0x00, ".repeat(bytes / 6))),
    ];
    let file = std::iter::once_with(move || {
        let mut source = String::with_capacity(5 * bytes);
        let mut number = 0;
        while source.len() < 5 * bytes {
            // Writing to a string cannot fail.
            let _ = writeln!(source, "fn f{number}(x: u64) -> u64 {{ if x > {number} {{ x * 2 }} else {{ x + 1 }} }}");
            number += 1;
        }
        Sample::new(format!("a file of {} bytes", source.len()), source)
    });
    make.into_iter().map(move |(name, make)| Sample::new(format!("{name} of {bytes} bytes"), make(bytes))).chain(file)
}

/// Sources that end too soon or never began.
pub fn broken() -> impl Iterator<Item = Sample> {
    [
        ("nothing", ""),
        ("a byte order mark alone", "\u{feff}"),
        ("two byte order marks", "\u{feff}\u{feff}fn f() {}"),
        ("a shebang alone", "#!"),
        ("a shebang and an attribute", "#!/bin/sh [\n#![a]"),
        ("an open string", "const A: &str = \"abc"),
        ("an open escape", "const A: &str = \"abc\\"),
        ("an open raw string", "const A: &str = r##\"abc\"#"),
        ("an open character", "const A: char = 'a"),
        ("an open character escape", "const A: char = '\\u{1"),
        ("an open comment", "/* /* */ fn f() {}"),
        ("an open bracket", "fn f() {"),
        ("a bracket of another kind", "fn f() { (] }"),
        ("a bracket too many", "fn f() {} }"),
        ("a keyword alone", "fn"),
        ("a bad escape", "const A: &str = \"\\q\\x80\\u{110000}\";"),
        ("a bad number", "const A: u8 = 0b2 + 0o8 + 0xg + 1e + 1__e+_;"),
        ("an unknown prefix", "const A: u8 = q\"x\" + z#x;"),
        ("a lone backslash", "\\"),
        ("control characters", "fn f\u{1}\u{2}\u{7}() {\u{b}\u{c}\u{1b}[31m}"),
        ("text that reads backwards", "fn f() { /* \u{202e} } \u{2066}if a\u{2069} \u{2066} */ }"),
        ("invisible characters", "fn f\u{200b}\u{2060}() {}"),
        ("carriage returns", "fn f() {\r}\r\r\n// a\rb\n"),
        ("combining characters", "fn f\u{301}\u{301}\u{301}() {}"),
    ]
    .into_iter()
    .map(|(name, source)| Sample::new(name, source))
}

/// Bytes that are not UTF-8, or text that pretends to be source.
pub fn encoded() -> impl Iterator<Item = Sample> {
    let utf16 = |big: bool| {
        "\u{feff}fn main() {}"
            .encode_utf16()
            .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect()
    };
    let random = {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        std::iter::repeat_with(move || {
            // Marsaglia's xorshift: any bytes will do, as long as they are the same each time.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(64 << 10)
        .collect()
    };
    let samples: Vec<(&str, Vec<u8>)> = vec![
        ("a lone continuation byte", b"fn f() { \x80 }".to_vec()),
        ("a cut-off character", b"fn f() {} // \xE2\x82".to_vec()),
        ("an overlong slash", b"// \xC0\xAF\nfn f() {}".to_vec()),
        ("an encoded surrogate", b"// \xED\xA0\x80\nfn f() {}".to_vec()),
        ("a character past the last", b"// \xF4\x90\x80\x80\nfn f() {}".to_vec()),
        ("Latin-1", b"fn caf\xE9() {}".to_vec()),
        ("UTF-16, little end first", utf16(false)),
        ("UTF-16, big end first", utf16(true)),
        ("NULs in code", b"fn f\0() {\0}".to_vec()),
        ("NULs in a string", b"const A: &str = \"\0\0\0\";".to_vec()),
        ("a megabyte of NULs", vec![0; 1 << 20]),
        ("a megabyte of 0xFF", vec![0xFF; 1 << 20]),
        ("an ELF header", b"\x7FELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3E\0".to_vec()),
        ("a gzip header", b"\x1F\x8B\x08\0\0\0\0\0\0\x03".to_vec()),
        ("random bytes", random),
    ];
    samples.into_iter().map(|(name, source)| Sample::new(name, source))
}

/// `source` cut off after every `step` bytes, characters cut through as well.
///
/// # Panics
/// When `step` is 0.
pub fn truncated(source: &[u8], step: usize) -> impl Iterator<Item = Sample> {
    (0..source.len()).step_by(step).map(|end| Sample::new(format!("cut off after {end} bytes"), &source[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_corpus_has_no_two_alike_and_is_the_same_each_time() {
        let names: Vec<_> = corpus(50).map(|sample| sample.name).collect();
        assert!(names.len() > 200, "{}", names.len());
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert!(corpus(50).eq(corpus(50)));
    }

    #[cfg(feature = "syn")]
    #[test]
    fn shallow_samples_are_mostly_valid_rust_so_that_deep_ones_reach_the_parser() {
        let valid =
            |sample: &Sample| std::str::from_utf8(&sample.source).is_ok_and(|text| syn::parse_file(text).is_ok());
        let all: Vec<_> = nested(2).take(NESTED.len()).chain(chained(2)).collect();
        let refused: Vec<_> = all.iter().filter(|sample| !valid(sample)).map(|sample| &sample.name).collect();
        assert!(refused.len() * 5 < all.len(), "{refused:?}");
    }
}
