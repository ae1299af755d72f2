//! A body in chunks (RFC 9112, section 7.1).
//!
//! Stricter than the grammar in one point: chunk extensions in a request, which nobody sends but those who look for parsers
//! that disagree about them, are faults. In a response they are passed over: nobody reads it after us.

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use memchr::memchr;

use super::{Fault, Field, Lines};

/// Longest line with a size: sixteen digits hold every size there is.
const LONGEST_SIZE: usize = 16;

/// Longest extensions of one chunk of a response.
const LONGEST_EXTENSIONS: usize = 1024;

/// Most bytes of all trailers together.
const LARGEST_TRAILERS: usize = 8 * 1024;

/// Trailers that would change what was decided from the head (RFC 9110, section 6.5.1).
const FORBIDDEN_TRAILERS: [&[u8]; 10] = [
    b"transfer-encoding",
    b"content-length",
    b"host",
    b"trailer",
    b"te",
    b"connection",
    b"upgrade",
    b"expect",
    b"authorization",
    b"content-encoding",
];

/// Reads one body and finds its end.
#[derive(Debug)]
pub struct ChunkScanner {
    part: Part,
    lines: Lines,
    trailers: usize,
    /// The trailers so far, if there are any.
    kept: Option<Box<HeaderMap>>,
    /// Whether extensions are passed over.
    lenient: bool,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Size,
    Data(u64),
    /// The end of the line after the data of a chunk.
    DataEnd,
    Trailers,
    Over,
}

// === impl ChunkScanner ===

impl ChunkScanner {
    /// A scanner for the body of a request.
    #[expect(clippy::new_without_default, reason = "a body that has not begun is no default of anything")]
    pub fn new() -> Self {
        Self { part: Part::Size, lines: Lines::default(), trailers: 0, kept: None, lenient: false }
    }

    /// A scanner for the body of a response.
    pub fn of_response() -> Self {
        Self { lenient: true, ..Self::new() }
    }

    /// The trailers, once the body is over, if there are any.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.kept.take_if(|_| matches!(self.part, Part::Over)).map(|trailers| *trailers)
    }

    /// Whether what comes next are bytes of the body itself.
    pub fn is_in_data(&self) -> bool {
        matches!(self.part, Part::Data(_))
    }

    /// Whether the body has ended; what follows is not its own.
    pub fn is_over(&self) -> bool {
        matches!(self.part, Part::Over)
    }

    /// Reads one line, or what there is of a chunk, and says how many bytes that were: none once the body is over. After a
    /// fault it is not to be asked again.
    pub fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match &mut self.part {
            Part::Data(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.part = Part::DataEnd;
                }
                Ok(taken)
            }
            Part::Over => Ok(0),
            Part::Size | Part::DataEnd | Part::Trailers => self.line(bytes),
        }
    }

    fn without_extensions<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        match memchr(b';', line) {
            Some(end) if self.lenient => line[..end].trim_ascii_end(),
            _ => line,
        }
    }

    fn line(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let longest = match self.part {
            Part::Size if self.lenient => LONGEST_SIZE + LONGEST_EXTENSIONS + 2,
            Part::Size => LONGEST_SIZE + 2,
            Part::Trailers => LARGEST_TRAILERS.saturating_sub(self.trailers),
            _ => 2,
        };
        let line = match self.lines.next(bytes, longest) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(bytes.len()),
            Err(_) => return Err(Fault::Chunk),
        };
        self.part = match self.part {
            Part::Size => match size(self.without_extensions(&line.content))? {
                0 => Part::Trailers,
                left => Part::Data(left),
            },
            Part::Trailers if line.content.is_empty() => Part::Over,
            Part::Trailers => {
                trailer(&line.content, &mut self.kept)?;
                self.trailers += line.content.len() + 2;
                Part::Trailers
            }
            _ if line.content.is_empty() => Part::Size,
            _ => return Err(Fault::Chunk),
        };
        Ok(line.taken)
    }
}

/// A size: hexadecimal digits and nothing else.
fn size(line: &[u8]) -> Result<u64, Fault> {
    if line.is_empty() || line.len() > LONGEST_SIZE {
        return Err(Fault::Chunk);
    }
    line.iter().try_fold(0, |size: u64, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or(Fault::Chunk)?;
        Ok(size << 4 | u64::from(digit))
    })
}

fn trailer(line: &[u8], kept: &mut Option<Box<HeaderMap>>) -> Result<(), Fault> {
    let field = Field::read(line).map_err(|_| Fault::Chunk)?;
    for name in FORBIDDEN_TRAILERS {
        if field.is(name).map_err(|_| Fault::Chunk)? {
            return Err(Fault::Chunk);
        }
    }
    let name = HeaderName::from_bytes(field.name).map_err(|_| Fault::Chunk)?;
    let value = HeaderValue::from_bytes(field.value).map_err(|_| Fault::Chunk)?;
    kept.get_or_insert_default().append(name, value);
    Ok(())
}
