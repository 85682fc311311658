#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What systemd-socket-activate starts: serves the listener that it finds as descriptor 3."""

import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serving import serve

serve(socket.socket(fileno=3))
