//! Reading over what nobody asks for, which is most of a result: checked as strictly as what is read, but for keys that are
//! there twice.

use std::io::Read;

use super::{Json, Read_};

/// What has to come next.
#[derive(Clone, Copy)]
enum Wanted {
    Value,
    /// A comma and another item, or the end of what is open.
    After,
}

impl<R: Read> Json<R> {
    /// Reads over the next value.
    pub(crate) fn skip(&mut self) -> Read_<()> {
        let outside = self.depth;
        // Which of the open levels are objects: a bit each, the innermost is the lowest. There are no more levels than bits.
        let mut objects: u128 = 0;
        let mut wanted = Wanted::Value;
        loop {
            let next = self.next()?;
            match (wanted, next) {
                (Wanted::Value, b'"') => self.read_string(None)?,
                (Wanted::Value, b'{' | b'[') => {
                    self.enter()?;
                    objects = objects << 1 | u128::from(next == b'{');
                    match (next, self.next()?) {
                        (b'{', b'}') | (b'[', b']') => {}
                        (b'{', _) => {
                            self.skip_key()?;
                            continue;
                        }
                        _ => continue,
                    }
                    objects >>= 1;
                    self.leave();
                }
                (Wanted::Value, b'-' | b'0'..=b'9') => {
                    self.number_text()?;
                }
                (Wanted::Value, b't') => self.word("true")?,
                (Wanted::Value, b'f') => self.word("false")?,
                (Wanted::Value, b'n') => self.word("null")?,
                (Wanted::Value, _) => return Err(self.malformed("there should be a value")),
                (Wanted::After, b',') => {
                    self.source.consume(1);
                    if objects & 1 == 1 {
                        self.skip_key()?;
                    }
                    wanted = Wanted::Value;
                    continue;
                }
                (Wanted::After, b'}' | b']') if (next == b'}') == (objects & 1 == 1) => {
                    objects >>= 1;
                    self.leave();
                }
                (Wanted::After, _) => return Err(self.malformed("there should be a comma")),
            }
            if self.depth == outside {
                return Ok(());
            }
            wanted = Wanted::After;
        }
    }

    fn skip_key(&mut self) -> Read_<()> {
        if self.next()? != b'"' {
            return Err(self.malformed("there should be a key"));
        }
        self.read_string(None)?;
        self.colon()
    }
}
