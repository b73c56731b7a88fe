"""The OpenVINO runtime: devices, compiled components, and what is kept of them between processes.

Only this package and the networks import OpenVINO when a picture is drawn.
"""
