//! Much at once, to readers that take their time, compared by hash. 64 MiB; PORTOLAN_TEST_TRANSFER_MIB=1024 for a GiB.

use crate::network::script_in_network;

#[test]
fn much_arrives_whole_at_slow_readers() {
    script_in_network(
        "programs::transfers::much_arrives_whole_at_slow_readers",
        &["python3", "ss"],
        r#"
        mib=${PORTOLAN_TEST_TRANSFER_MIB:-64}
        expected=$(python3 transfer.py told "$mib")
        python3 transfer.py serve 4000 "$mib" &
        space -p 4001:4001 -- python3 transfer.py serve 4001 "$mib"
        await listens 4000
        for address in "$V4" "$V6"; do
            same "$(run -- python3 transfer.py fetch "$address" 4000 0.03)" "$expected"
        done
        for address in "$V4" "$V6" 127.0.0.1; do
            # What is published is there before what listens inside.
            until said=$(python3 transfer.py fetch "$address" 4001 0.03 2>/dev/null); do sleep 0.05; done
            same "$said" "$expected"
        done
        # The other way: the program inside sends, then the one outside.
        python3 transfer.py take 4002 0.03 >taken &
        await listens 4002
        run -- python3 transfer.py push "$V4" 4002 "$mib"
        wait $!
        same "$(cat taken)" "$expected"
        (run -p 4003:4003 -- python3 transfer.py take 4003 0.03 >taken) &
        until python3 transfer.py push "$V6" 4003 "$mib" 2>/dev/null; do sleep 0.05; done
        wait $!
        same "$(cat taken)" "$expected"
        echo "note: $mib MiB, seven times"
        "#,
    );
}
