//! Input that is read as a list of acts. Whatever the bytes are, they mean something.

/// What is left of the input.
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next two bytes as a number; what is missing is zero.
    pub fn number(&mut self) -> usize {
        let (high, low) = (self.byte().unwrap_or_default(), self.byte().unwrap_or_default());
        usize::from(u16::from_be_bytes([high, low]))
    }

    /// The next bytes, at most so many.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
