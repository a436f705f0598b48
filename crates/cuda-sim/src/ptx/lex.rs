//! Text to tokens.

use super::Error;

/// A piece of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, a directive, an opcode with its modifiers, or a number.
    Word(&'a str),
    /// What stands between quotation marks, as it is written.
    Text(&'a str),
    /// Any other character.
    Mark(char),
}

/// Splits the text; each token with its line.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token<'_>, u32)>, Error> {
    let bytes = text.as_bytes();
    let word = |at: usize| match bytes.get(at) {
        Some(b':') => bytes.get(at + 1) == Some(&b':') || (at > 0 && bytes[at - 1] == b':'),
        Some(byte) => byte.is_ascii_alphanumeric() || b"_$%.".contains(byte),
        None => false,
    };
    let (mut at, mut line, mut tokens) = (0, 1, Vec::new());
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'\n' => line += 1,
            b' ' | b'\t' | b'\r' => {}
            b'/' if bytes.get(at) == Some(&b'/') => at += bytes[at..].iter().take_while(|&&byte| byte != b'\n').count(),
            b'/' if bytes.get(at) == Some(&b'*') => {
                let length = text.get(at + 1..).and_then(|rest| rest.find("*/"));
                let length = length.ok_or_else(|| Error::new(line, "a comment without end"))?;
                line += bytes[at..at + 1 + length].iter().filter(|&&byte| byte == b'\n').count() as u32;
                at += length + 3;
            }
            b'"' => {
                let length = bytes[at..].iter().position(|&byte| byte == b'"' || byte == b'\n');
                let end = at + length.unwrap_or(0);
                if bytes.get(end) != Some(&b'"') {
                    return Err(Error::new(line, "a text without end"));
                }
                tokens.push((Token::Text(&text[at..end]), line));
                at = end + 1;
            }
            _ if word(start) => {
                while word(at) {
                    at += 1;
                }
                tokens.push((Token::Word(&text[start..at]), line));
            }
            _ if byte.is_ascii_graphic() => tokens.push((Token::Mark(byte.into()), line)),
            _ => return Err(Error::new(line, format!("the byte 0x{byte:02x} outside a comment"))),
        }
    }
    Ok(tokens)
}
