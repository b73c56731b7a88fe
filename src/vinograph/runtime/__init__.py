"""The OpenVINO runtime: devices, sessions, and the cache of compiled models and measured settings.

Only this package and the networks import OpenVINO when a picture is drawn.
"""
