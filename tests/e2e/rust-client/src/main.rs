//! Calls of Postern by libraries made for Consul, with their own decoding: LIBRARY ADDRESS TOKEN. Ends well if every answer was
//! what the library takes and what Consul would have said.

mod consulrs_calls;
mod rs_consul_calls;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [library, address, token] = arguments.as_slice() else { panic!("LIBRARY ADDRESS TOKEN") };
    match library.as_str() {
        "consulrs" => consulrs_calls::make_all(address, token).await,
        "rs-consul" => rs_consul_calls::make_all(address, token).await,
        other => panic!("{other} is none of the libraries"),
    }
    println!("{library} made all of its calls");
}
