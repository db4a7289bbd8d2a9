"""Reports: how good is this posterior?"""
