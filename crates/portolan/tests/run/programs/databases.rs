//! Databases: Redis and PostgreSQL.

use crate::network::script_in_network;

#[test]
fn redis() {
    script_in_network(
        "programs::databases::redis",
        &["redis-server", "redis-cli", "redis-benchmark"],
        r#"
        server() { echo redis-server --port "$1" --bind '*' '::*' --protected-mode no --save '' --appendonly no; }
        measure() { timeout 40 "$@" -q --csv | tail -n +2; }
        set -f
        space -p 8000:6379 -- $(server 6379) >/dev/null
        await redis-cli -h "$V4" -p 8000 ping
        for address in "$V4" "$V6" 127.0.0.1; do
            same "$(redis-cli -h "$address" -p 8000 set "at $address" 1)" OK
            same "$(measure redis-benchmark -h "$address" -p 8000 -n 4000 -c 50 -P 4 -t set,get,lrange_100 | wc -l)" 4
        done
        same "$(redis-cli -h "$V4" -p 8000 get "at $V6")" 1
        $(server 6379) >/dev/null &
        await redis-cli -h "$V4" ping
        for address in "$V4" "$V6"; do
            same "$(measure "$PORTOLAN" run -- redis-benchmark -h "$address" -n 4000 -c 50 -d 1000 -t set,get | wc -l)" 2
        done
        # One that only listens, while another writes.
        ("$PORTOLAN" run -- timeout 20 redis-cli -h "$V4" subscribe news | head -n 6 >heard) &
        await sh -c "redis-cli publish news ahoy | grep 1"
        await grep ahoy heard
        "#,
    );
}

#[test]
fn postgresql() {
    script_in_network(
        "programs::databases::postgresql",
        &["initdb", "postgres", "psql", "pgbench"],
        r#"
        as=$ordinary
        $as initdb -D data -A trust -U sailor --no-sync --no-instructions >/dev/null 2>errors || { cat errors; exit 1; }
        echo 'host all all all trust' >>data/pg_hba.conf
        server="postgres -D $PWD/data -c listen_addresses=* -c unix_socket_directories= -c fsync=off"
        query="select count(*), sum(length(text)) from (select repeat('x', n) as text from generate_series(1, 5000) n) t"
        ask() { psql -h "$1" -p "$2" -U sailor -At postgres -c "$query"; }
        space -p 5433:5432 -- $server 2>log
        pid=$!
        await ask "$V4" 5433
        for address in "$V4" "$V6" 127.0.0.1; do
            same "$(ask "$address" 5433)" "5000|12502500"
        done
        # Much out by COPY, and back in.
        psql -h "$V6" -p 5433 -U sailor postgres -qc 'create table much (n int, text text)'
        seq 1 50000 | sed 's/.*/&\tsome text of & that is long enough/' >rows
        psql -h "$V4" -p 5433 -U sailor postgres -qc '\copy much from rows'
        psql -h "$V6" -p 5433 -U sailor postgres -qc '\copy (select * from much order by n) to back'
        same "$(hash <back)" "$(hash <rows)"
        same "$(psql -h "$V4" -p 5433 -U sailor postgres -Atc 'select inet_client_addr()')" "$V4"
        kill -INT $pid
        wait $pid
        $as $server 2>log &
        await ask "$V4" 5432
        for address in "$V4" "$V6"; do
            same "$(run -- psql -h "$address" -U sailor -At postgres -c "$query")" "5000|12502500"
        done
        run -- psql -h "$V4" -U sailor postgres -qc '\copy (select * from much order by n) to again'
        same "$(hash <again)" "$(hash <rows)"
        run -- pgbench -h "$V6" -U sailor -i -q postgres 2>/dev/null
        has "$(run -- pgbench -h "$V4" -U sailor -c 10 -C -t 5 postgres 2>&1)" "processed: 50/50"
        "#,
    );
}
