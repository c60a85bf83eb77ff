//! HTTP: curl, Python's server, nginx and wrk.

use crate::network::script_in_network;

#[test]
fn curl_and_the_server_of_python() {
    script_in_network(
        "programs::http::curl_and_the_server_of_python",
        &["curl", "python3"],
        r#"
        head -c 3000000 /dev/urandom >file
        sum=$(hash <file)
        python3 -m http.server --bind :: 8000 >/dev/null 2>&1 &
        await curl -sf "http://$V4:8000/"
        for address in "$V4" "[$V6]"; do
            same "$(run -- curl -sS "http://$address:8000/file" | hash)" "$sum"
        done
        # The answer to a HEAD has a length and no bytes; one that was asked for in the middle has those.
        has "$(run -- curl -sSI "http://$V4:8000/file")" "3000000"
        code=0; run -- curl -sS "http://$V4:8001/" 2>errors || code=$?
        same "$code" 7
        space -p 8080:80 -- python3 -m http.server --bind :: 80 >log 2>&1
        await curl -sf "http://$V4:8080/"
        for address in "$V4" "[$V6]" 127.0.0.1 "[::1]"; do
            same "$(curl -sS "http://$address:8080/file" | hash)" "$sum"
        done
        # Each client is seen as who it is; this host's loopback is the gateway.
        has "$(cat log)" "$V4 - -"
        has "$(cat log)" "$V6 - -"
        ! grep -E '^(::ffff:)?127\.|^::1 ' log
        "#,
    );
}

/// nginx takes pictures of its files by sendfile, accepts in batches, and resets what idles.
const NGINX: &str = r#"
    head -c 50000 /dev/urandom >file
    sum=$(hash <file)
    cat >nginx.conf <<END
    daemon off; worker_processes 1; pid $PWD/pid; error_log $PWD/errors;
    events { worker_connections 4000; }
    http {
        access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
        client_body_temp_path $PWD/a; proxy_temp_path $PWD/b; fastcgi_temp_path $PWD/c;
        uwsgi_temp_path $PWD/d; scgi_temp_path $PWD/e;
        server { listen 80; listen [::]:80; root $PWD; }
    }
END
    # As root it would become another user, which the program in a space cannot.
    as=$ordinary
    server="nginx -p $PWD -e $PWD/errors -c $PWD/nginx.conf"
    check() {
        local text
        text=$("$@")
        has "$text" "Requests/sec"
        case $text in *Socket?errors* | *Non-2xx*) echo "$text"; exit 6;; esac
        echo "note: $(echo "$text" | grep Requests/sec)"
    }
"#;

#[test]
fn wrk_against_nginx_in_a_space() {
    let text = r#"
        space -p 8080:80 -- $server
        await curl -sf "http://$V4:8080/file"
        for address in "$V4" "[$V6]" 127.0.0.1; do
            same "$(curl -sS "http://$address:8080/file" | hash)" "$sum"
        done
        ulimit -n 4000
        check wrk -t1 -c64 -d1 "http://$V4:8080/nginx.conf"
        check wrk -t1 -c1000 -d2 --timeout 30 "http://[$V6]:8080/nginx.conf"
    "#;
    script_in_network(
        "programs::http::wrk_against_nginx_in_a_space",
        &["nginx", "wrk", "curl"],
        &format!("{NGINX}{text}"),
    );
}

#[test]
fn wrk_in_a_space_against_nginx() {
    let text = r#"
        $as $server &
        await curl -sf "http://$V4/file"
        ulimit -n 4000
        check run -- wrk -t1 -c64 -d1 "http://[$V6]/file"
        check run -- wrk -t1 -c1000 -d2 --timeout 30 "http://$V4/nginx.conf"
    "#;
    script_in_network(
        "programs::http::wrk_in_a_space_against_nginx",
        &["nginx", "wrk", "curl"],
        &format!("{NGINX}{text}"),
    );
}
