//! How messages are put on a stream and taken off it.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// What a stream sets aside for each direction before anything is said. tonic's own codec takes 8 KiB, which a stream
/// that is quiet for hours keeps; a longer message gets a longer buffer while it lasts.
const BUFFER: usize = 512;
/// From so many encoded bytes on they are handed to the connection, as with tonic's own codec.
const HAND_OVER: usize = 32 << 10;

/// Protocol Buffers with small buffers. The limits of message sizes are those of the client and the server.
#[derive(Debug, Clone)]
pub struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(buffers())
    }
}

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER, HAND_OVER)
}

#[cfg(test)]
mod tests {
    use tonic::codec::{Decoder, Encoder};

    use super::*;
    use crate::v1::ControlMessage;

    #[test]
    fn a_quiet_stream_keeps_half_a_kibibyte_a_direction() {
        let mut codec = SmallBuffers::<ControlMessage, ControlMessage>::default();
        let shown = |settings: BufferSettings| format!("{settings:?}");
        let expected = shown(BufferSettings::new(512, 32 << 10));
        assert_eq!(shown(codec.encoder().buffer_settings()), expected);
        assert_eq!(shown(codec.decoder().buffer_settings()), expected);
    }
}
