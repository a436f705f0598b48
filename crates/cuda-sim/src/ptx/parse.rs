//! Tokens to statements.

use super::lex::{Token, tokens};
use super::{Error, Type};

/// A translation unit.
#[derive(Debug, Default)]
pub struct Module<'a> {
    /// `.version`, major and minor.
    pub version: (u32, u32),
    /// `.target`, as `sm_80` or `sm_90a`.
    pub target: &'a str,
    /// Variables of the module in `.global`, `.const` and `.shared`.
    pub variables: Vec<Variable<'a>>,
    /// Functions and entries that have a body.
    pub functions: Vec<Function<'a>>,
    /// The names of `.file`, by number.
    pub files: Vec<(u32, &'a str)>,
}

/// A variable or a parameter.
#[derive(Clone, Debug)]
pub struct Variable<'a> {
    /// Its name.
    pub name: &'a str,
    /// Line of the declaration.
    pub line: u32,
    /// `global`, `const`, `shared`, `local`, `param`.
    pub space: &'a str,
    /// Type of an element.
    pub ty: Type,
    /// Alignment, bytes.
    pub align: u32,
    /// Elements; nothing for `name[]`.
    pub count: Option<u64>,
    /// The initial elements, as far as given.
    pub init: Vec<Arg<'a>>,
}

impl Variable<'_> {
    /// Bytes; 0 for `name[]`.
    pub fn bytes(&self) -> u64 {
        self.count.unwrap_or(0).saturating_mul(self.ty.bytes().into())
    }
}

/// A function or an entry.
#[derive(Debug)]
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// Line of the declaration.
    pub line: u32,
    /// May it be launched?
    pub entry: bool,
    /// What it returns.
    pub results: Vec<Variable<'a>>,
    /// What it takes.
    pub params: Vec<Variable<'a>>,
    /// `.maxntid`.
    pub max_block: Option<[u32; 3]>,
    /// `.reqntid`.
    pub required_block: Option<[u32; 3]>,
    /// `.minnctapersm`.
    pub min_blocks: Option<u32>,
    /// `.maxnreg`.
    pub max_registers: Option<u32>,
    /// The body.
    pub items: Vec<Item<'a>>,
}

/// A piece of a body.
#[derive(Debug)]
pub enum Item<'a> {
    /// `{`
    Open,
    /// `}`
    Close,
    /// `name:`
    Label(&'a str, u32),
    /// `.reg`: names `prefix0` to `prefix(count-1)`, or just the name.
    Registers {
        /// Type of each.
        ty: Type,
        /// The name, or the prefix.
        name: &'a str,
        /// How many, for a prefix.
        count: Option<u32>,
    },
    /// A variable of the body.
    Variable(Variable<'a>),
    /// `.loc`: file number and line; and where the function that it belongs to was inlined.
    Loc((u32, u32), Option<(u32, u32)>),
    /// `name: .branchtargets a, b, c;`
    Targets(&'a str, Vec<&'a str>),
    /// An instruction.
    Instruction(Instruction<'a>),
}

/// An instruction.
#[derive(Debug)]
pub struct Instruction<'a> {
    /// Line of the text.
    pub line: u32,
    /// `@p` or `@!p` (then true).
    pub guard: Option<(&'a str, bool)>,
    /// The opcode with its modifiers, as it is written.
    pub opcode: &'a str,
    /// The operands.
    pub args: Vec<Arg<'a>>,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg<'a> {
    /// A register, a variable, a label, `_`.
    Name(&'a str),
    /// A name and a distance.
    Offset(&'a str, i64),
    /// An integer.
    Int(i128),
    /// `0f...`: the bits of an f32.
    F32(u32),
    /// `0d...` or a decimal fraction: the bits of an f64.
    F64(u64),
    /// `!name`
    Not(&'a str),
    /// `{a, b}`
    Vector(Vec<Arg<'a>>),
    /// `(a, b)`
    List(Vec<Arg<'a>>),
    /// `[a]`, also `[a, b]`
    Address(Vec<Arg<'a>>),
    /// `a|b`
    Pair(Box<Arg<'a>>, Box<Arg<'a>>),
    /// `"..."`
    Text(&'a str),
}

/// Parses a translation unit.
///
/// # Errors
/// At the first thing that is not understood.
pub fn parse(text: &str) -> Result<Module<'_>, Error> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
    let mut module = Module::default();
    while parser.at < tokens.len() {
        parser.top(&mut module)?;
    }
    if module.version == (0, 0) || module.target.is_empty() {
        return Err(Error::new(1, "no .version or no .target: this is not PTX"));
    }
    Ok(module)
}

struct Parser<'t, 'a> {
    tokens: &'t [(Token<'a>, u32)],
    at: usize,
    /// Operands around the one under way.
    depth: u32,
}

/// Operands within operands, at most.
const DEEPEST: u32 = 8;
/// The largest alignment of a variable, bytes.
const WIDEST: u32 = 1 << 16;

/// What stands before a name in a declaration.
struct Declared<'a> {
    space: &'a str,
    ty: Type,
    align: u32,
}

impl<'a> Parser<'_, 'a> {
    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.1)
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::new(self.line(), message))
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|token| token.0)
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn take(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(Token::Mark(mark));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char) -> Result<(), Error> {
        if self.take(mark) { Ok(()) } else { self.error(format!("`{mark}` expected, found {}", self.found())) }
    }

    fn found(&self) -> String {
        match self.peek() {
            Some(Token::Word(word)) => format!("`{word}`"),
            Some(Token::Text(text)) => format!("\"{text}\""),
            Some(Token::Mark(mark)) => format!("`{mark}`"),
            None => "the end of the text".into(),
        }
    }

    fn word(&mut self) -> Result<&'a str, Error> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.error(format!("a name expected, found {}", self.found())),
        }
    }

    fn directive(&mut self, name: &str) -> bool {
        let found = self.peek() == Some(Token::Word(name));
        self.at += usize::from(found);
        found
    }

    fn number<T: TryFrom<i128>>(&mut self) -> Result<T, Error> {
        let negative = self.take('-');
        let line = self.line();
        let word = self.word()?;
        let value = integer(word).map(|value| if negative { -value } else { value });
        value
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| Error::new(line, format!("a number expected, found `{word}`")))
    }

    /// Skips tokens up to the end of their line.
    fn skip_line(&mut self, line: u32) {
        while self.tokens.get(self.at).is_some_and(|token| token.1 == line) {
            self.at += 1;
        }
    }

    fn skip_to(&mut self, mark: char) -> Result<(), Error> {
        while !self.take(mark) {
            if self.next().is_none() {
                return self.error(format!("`{mark}` expected, found the end of the text"));
            }
        }
        Ok(())
    }

    fn top(&mut self, module: &mut Module<'a>) -> Result<(), Error> {
        let line = self.line();
        match self.word()? {
            ".version" => {
                let text = self.word()?;
                let parts = text.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                module.version = parts.ok_or_else(|| Error::new(line, format!("`{text}` is not a version")))?;
            }
            ".target" => {
                module.target = self.word()?;
                while self.take(',') {
                    self.word()?;
                }
            }
            ".address_size" => {
                if self.number::<u32>()? != 64 {
                    return Err(Error::new(line, "only .address_size 64 is simulated"));
                }
            }
            ".file" => {
                let number = self.number()?;
                if let Some(Token::Text(name)) = self.next() {
                    module.files.push((number, name));
                }
                self.skip_line(line);
            }
            ".section" => {
                self.word()?;
                self.expect('{')?;
                self.skip_to('}')?;
            }
            ".loc" => self.skip_line(line),
            ".visible" | ".extern" | ".weak" | ".common" => {}
            ".pragma" | ".alias" => self.skip_to(';')?,
            ".entry" => self.function(true, module)?,
            ".func" => self.function(false, module)?,
            ".global" | ".const" | ".shared" => {
                self.at -= 1;
                self.variables(&mut module.variables)?;
            }
            other => return Err(Error::new(line, format!("unknown directive `{other}`"))),
        }
        Ok(())
    }

    fn function(&mut self, entry: bool, module: &mut Module<'a>) -> Result<(), Error> {
        while self.directive(".noreturn") {}
        let results = if self.peek() == Some(Token::Mark('(')) { self.params()? } else { Vec::new() };
        let line = self.line();
        let name = self.word()?;
        let params = if self.peek() == Some(Token::Mark('(')) { self.params()? } else { Vec::new() };
        let mut function = Function {
            name,
            line,
            entry,
            results,
            params,
            max_block: None,
            required_block: None,
            min_blocks: None,
            max_registers: None,
            items: Vec::new(),
        };
        loop {
            if self.take(';') {
                return Ok(()); // A declaration: calls of it are looked up by name.
            }
            if self.take('{') {
                break;
            }
            let line = self.line();
            match self.word()? {
                ".maxntid" => function.max_block = Some(self.extents()?),
                ".reqntid" => function.required_block = Some(self.extents()?),
                ".minnctapersm" | ".maxnctapersm" => function.min_blocks = Some(self.number()?),
                ".maxnreg" => function.max_registers = Some(self.number()?),
                ".noreturn" => {}
                ".pragma" => self.skip_to(';')?,
                other => return Err(Error::new(line, format!("unknown directive `{other}`"))),
            }
        }
        let mut depth = 1;
        while depth > 0 {
            if self.take('{') {
                depth += 1;
                function.items.push(Item::Open);
            } else if self.take('}') {
                depth -= 1;
                function.items.push(Item::Close);
            } else {
                self.item(&mut function.items)?;
            }
        }
        function.items.pop();
        module.functions.push(function);
        Ok(())
    }

    fn extents(&mut self) -> Result<[u32; 3], Error> {
        let mut extents = [self.number()?, 1, 1];
        for extent in &mut extents[1..] {
            if self.take(',') {
                *extent = self.number()?;
            }
        }
        Ok(extents)
    }

    fn params(&mut self) -> Result<Vec<Variable<'a>>, Error> {
        let mut params = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            let declared = self.declared()?;
            params.push(self.declarator(&declared)?);
            self.take(',');
        }
        Ok(params)
    }

    /// `.space .align n .type`, in the orders that occur.
    fn declared(&mut self) -> Result<Declared<'a>, Error> {
        let (mut space, mut ty, mut align) = (None, None, None);
        while let Some(Token::Word(word)) = self.peek() {
            match word {
                ".align" => {
                    self.at += 1;
                    align = Some(self.number::<u32>()?);
                    continue;
                }
                ".global" | ".const" | ".shared" | ".local" | ".param" | ".reg" if space.is_none() => {
                    space = Some(&word[1..]);
                }
                ".ptr" | ".managed" | ".attribute" => {}
                ".global::cta" => {}
                ".global" | ".const" | ".shared" | ".local" => {}
                ".v2" | ".v4" => return self.error("vector variables are not simulated"),
                _ => match word.strip_prefix('.').and_then(Type::of) {
                    Some(found) => ty = Some(found),
                    None => break,
                },
            }
            self.at += 1;
        }
        let (Some(space), Some(ty)) = (space, ty) else {
            return self.error(format!("a declaration expected, found {}", self.found()));
        };
        let align = align.unwrap_or(ty.bytes());
        if !align.is_power_of_two() || align > WIDEST {
            return self.error(format!("an alignment of {align} bytes"));
        }
        Ok(Declared { space, ty, align })
    }

    fn declarator(&mut self, declared: &Declared<'a>) -> Result<Variable<'a>, Error> {
        let line = self.line();
        let name = self.word()?;
        let mut count = Some(1u64);
        while self.take('[') {
            if self.take(']') {
                count = None;
                continue;
            }
            let extent: u64 = self.number()?;
            count = count.map(|count| count.saturating_mul(extent));
            self.expect(']')?;
        }
        let mut init = Vec::new();
        if self.take('=') {
            match self.arg()? {
                Arg::Vector(elements) => init = elements,
                element => init.push(element),
            }
            if count.is_none() {
                count = Some(init.len() as u64);
            }
        }
        let &Declared { space, ty, align } = declared;
        Ok(Variable { name, line, space, ty, align, count, init })
    }

    fn variables(&mut self, into: &mut Vec<Variable<'a>>) -> Result<(), Error> {
        let declared = self.declared()?;
        loop {
            into.push(self.declarator(&declared)?);
            if !self.take(',') {
                return self.expect(';');
            }
        }
    }

    fn item(&mut self, items: &mut Vec<Item<'a>>) -> Result<(), Error> {
        let line = self.line();
        let guard = if self.take('@') {
            let negated = self.take('!');
            Some((self.word()?, negated))
        } else {
            None
        };
        let word = self.word()?;
        match word {
            ".reg" => {
                let mut words = self.word()?;
                while matches!(words, ".v2" | ".v4") {
                    words = self.word()?;
                }
                let ty = words.strip_prefix('.').and_then(Type::of);
                let ty = ty.ok_or_else(|| Error::new(line, format!("unknown register type `{words}`")))?;
                loop {
                    let name = self.word()?;
                    let mut count = None;
                    if self.take('<') {
                        count = Some(self.number()?);
                        self.expect('>')?;
                    }
                    items.push(Item::Registers { ty, name, count });
                    if !self.take(',') {
                        return self.expect(';');
                    }
                }
            }
            ".loc" => {
                let place = (self.number()?, self.number()?);
                let mut inlined = None;
                while self.tokens.get(self.at).is_some_and(|token| token.1 == line) {
                    if self.directive("inlined_at") {
                        inlined = Some((self.number()?, self.number()?));
                    } else {
                        self.at += 1;
                    }
                }
                items.push(Item::Loc(place, inlined));
            }
            ".pragma" | ".callprototype" => self.skip_to(';')?,
            ".local" | ".shared" | ".param" | ".global" | ".const" => {
                self.at -= 1;
                let mut variables = Vec::new();
                self.variables(&mut variables)?;
                items.extend(variables.into_iter().map(Item::Variable));
            }
            _ if word.starts_with('.') => return Err(Error::new(line, format!("unknown directive `{word}`"))),
            _ if guard.is_none() && self.take(':') => {
                if self.directive(".branchtargets") {
                    let mut targets = vec![self.word()?];
                    while self.take(',') {
                        targets.push(self.word()?);
                    }
                    self.expect(';')?;
                    items.push(Item::Targets(word, targets));
                } else {
                    items.push(Item::Label(word, line));
                }
            }
            opcode => {
                let mut args = Vec::new();
                while !self.take(';') {
                    if self.peek().is_none() {
                        return self.error("`;` expected, found the end of the text");
                    }
                    args.push(self.arg()?);
                    if self.peek() != Some(Token::Mark(';')) {
                        self.expect(',')?;
                    }
                }
                items.push(Item::Instruction(Instruction { line, guard, opcode, args }));
            }
        }
        Ok(())
    }

    fn arg(&mut self) -> Result<Arg<'a>, Error> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return self.error("operands nested too deep");
        }
        let first = self.operand()?;
        let arg = if self.take('|') { Arg::Pair(Box::new(first), Box::new(self.operand()?)) } else { first };
        self.depth -= 1;
        Ok(arg)
    }

    fn list(&mut self, end: char) -> Result<Vec<Arg<'a>>, Error> {
        let mut args = Vec::new();
        while !self.take(end) {
            args.push(self.arg()?);
            if self.peek() != Some(Token::Mark(end)) {
                self.expect(',')?;
            }
        }
        Ok(args)
    }

    fn operand(&mut self) -> Result<Arg<'a>, Error> {
        if let Some(Token::Text(text)) = self.peek() {
            self.at += 1;
            return Ok(Arg::Text(text));
        }
        if self.take('{') {
            return self.list('}').map(Arg::Vector);
        }
        if self.take('(') {
            return self.list(')').map(Arg::List);
        }
        if self.take('[') {
            return self.list(']').map(Arg::Address);
        }
        if self.take('!') {
            return self.word().map(Arg::Not);
        }
        let negative = self.take('-');
        let line = self.line();
        let word = self.word()?;
        if !word.starts_with(|first: char| first.is_ascii_digit()) {
            if negative {
                return Err(Error::new(line, format!("a number expected after `-`, found `{word}`")));
            }
            // generic(name): the generic address of a variable; here globals have one address only.
            let generic = word == "generic" && self.take('(');
            let word = if generic { self.word()? } else { word };
            if generic {
                self.expect(')')?;
            }
            if self.take('+') {
                return Ok(Arg::Offset(word, self.number()?));
            }
            if self.take('-') {
                return Ok(Arg::Offset(word, self.number::<i64>()?.wrapping_neg()));
            }
            return Ok(Arg::Name(word));
        }
        let bits = |hex: &str| u64::from_str_radix(hex, 16).ok();
        let parsed = match word.as_bytes() {
            [b'0', b'f' | b'F', ..] => bits(&word[2..]).map(|bits| Arg::F32(bits as u32)),
            [b'0', b'd' | b'D', ..] => bits(&word[2..]).map(Arg::F64),
            _ => match integer(word) {
                Some(value) => Some(Arg::Int(value)),
                None => word.parse().ok().map(|value: f64| Arg::F64(value.to_bits())),
            },
        };
        match (parsed, negative) {
            (Some(Arg::Int(value)), true) => Ok(Arg::Int(-value)),
            (Some(Arg::F32(bits)), true) => Ok(Arg::F32(bits ^ 1 << 31)),
            (Some(Arg::F64(bits)), true) => Ok(Arg::F64(bits ^ 1 << 63)),
            (Some(arg), _) => Ok(arg),
            (None, _) => Err(Error::new(line, format!("`{word}` is not a number"))),
        }
    }
}

/// An integer as PTX writes it: decimal, `0x`, `0b`, octal, with `U` at the end or without.
fn integer(word: &str) -> Option<i128> {
    let word = word.strip_suffix(['U', 'u']).unwrap_or(word);
    let value = match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => u64::from_str_radix(&word[2..], 16),
        [b'0', b'b' | b'B', ..] => u64::from_str_radix(&word[2..], 2),
        [b'0', _, ..] => u64::from_str_radix(&word[1..], 8),
        _ => word.parse(),
    };
    value.ok().map(i128::from)
}
