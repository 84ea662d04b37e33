"""Rules with every feature that ipvsadm has."""

from __future__ import annotations

from tests.formats.strategies import KNOWN_SCHEDULERS

SCHEDULED = "".join(f"-A -t 10.0.1.{number}:80 -s {name}\n" for number, name in enumerate(KNOWN_SCHEDULERS))
FULL = f"""\
-A -t 10.0.0.1:80 -s sh -b sh-fallback,sh-port
-A -t 10.0.0.2:80 -s mh -b flag-1
-A -t 10.0.0.3:80 -s mh -b mh-fallback,mh-port
-A -t 10.0.0.4:80 -s rr -b flag-1,flag-2,flag-3
-A -t 10.0.0.5:80 -p
-A -t 10.0.0.6:80 -p 2678400 -M 255.255.0.0
-A -t 10.0.0.7:80 -M 255.255.0.0
-A -t 10.0.0.8:80 -p 1 -M 255.255.255.255
-A -t 10.0.0.9:0 -p 60 -M 0.0.0.0
-A -u 10.0.0.1:5060 -s rr -p 60 -M 255.255.255.0 --pe sip -o -b flag-2
-A -u 10.0.0.2:53 -o
-A --sctp-service 10.0.0.1:80
-A -t [fd00::1]:80 -p 60 -M 64
-A -u [fd00::1]:53 -p 60 -M 128
-A --sctp-service [fd00::1]:80
-A -u [fd00::2]:53 -s rr
-A -f 7 -s rr
-A -f 7 -6 -p 60 -M 1
-A -f 2147483647 -o
{SCHEDULED}\
-a -t 10.0.0.1:80 -r 10.9.9.1
-a -t 10.0.0.1:80 -r 10.9.9.2:8080 -m -w 0
-a -t 10.0.0.1:80 -r 10.9.9.3:8080 -g -w 65535
-a -t 10.0.0.1:80 -r 10.9.9.4:8080 -i
-a -t 10.0.0.1:80 -r 10.9.9.5 -i --tun-type gre
-a -t 10.0.0.1:80 -r 10.9.9.6 -i --tun-type gre --tun-csum
-a -t 10.0.0.1:80 -r 10.9.9.7 -i --tun-type gue --tun-port 6080
-a -t 10.0.0.1:80 -r 10.9.9.8 -i --tun-type gue --tun-port 6080 --tun-csum
-a -t 10.0.0.1:80 -r 10.9.9.9 -i --tun-type gue --tun-port 6080 --tun-remcsum
-a -t 10.0.0.1:80 -r [fd00::9]:80 -i -w 3
-a -t 10.0.0.2:80 -r 10.9.9.1 -m -x 5
-a -t 10.0.0.2:80 -r 10.9.9.2 -m -x 5 -y 5
-a -t 10.0.0.2:80 -r 10.9.9.3 -g -x 1000000000 -y 1
-a -t 10.0.0.2:80 -r 10.9.9.4 -i -w 0 -x 7
-a -t 10.0.0.5:80 -r 10.9.9.1
-a -t 10.0.0.5:80 -r 10.9.9.2:8080 -m -w 0
-a -t 10.0.0.5:80 -r 10.9.9.3 -g -w 65535
-a -t 10.0.0.9:0 -r 10.9.9.1 -m
-a -t 10.0.0.9:0 -r 10.9.9.1:90 -m
-a -t 10.0.0.9:0 -r 10.9.9.2:90
-a -u 10.0.0.2:53 -r 10.9.9.1:0 -m
-a --sctp-service 10.0.0.1:80 -r 10.9.9.1 -m
-a -t [fd00::1]:80 -r [fd00::9]:8080 -m -x 9 -y 3
-a -t [fd00::1]:80 -r fd00::8
-a -t [fd00::1]:80 -r 10.9.9.1:9 -i
-a -u [fd00::2]:53 -r [fd00::9]:5353 -m -w 7
-a -u [fd00::2]:53 -r fd00::8
-a -f 7 -r 10.9.9.1
-a -f 7 -r 10.9.9.2:90 -g
-a -f 7 -r 10.9.9.3:90 -i
-a -f 7 -r 10.9.9.3:91 -m
-a -f 7 -6 -r fd00::9 -m
-a -f 7 -6 -r 10.9.9.3:90 -i
"""
